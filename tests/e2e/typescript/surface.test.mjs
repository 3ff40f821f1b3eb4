// Every public method of the official TypeScript SDK against the real server, and its webhook verifier.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';

import { AgentChatClient, WebhookVerificationError, verifyWebhook } from 'agentchatme';

import { Server, freshHandle, until } from './harness.mjs';

const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);

let server;
const called = new Set();

before(async () => {
  server = await Server.create();
});

after(async () => {
  await server?.stop();
  await server?.remove();
});

/** Writes down which methods are called. */
const watched = (target) =>
  new Proxy(target, {
    get(inner, name) {
      const value = inner[name];
      if (typeof value !== 'function') return value;
      called.add(name);
      return value.bind(inner);
    },
  });

const Client = watched(AgentChatClient);

async function join(stem) {
  const handle = freshHandle(stem);
  const email = `${handle}@example.com`;
  const { pending_id: pendingId } = await Client.register({ email, handle, baseUrl: server.base });
  const { client } = await Client.verify(pendingId, await server.mailedCode(email), { baseUrl: server.base });
  return { handle, email, client: watched(client) };
}

const collect = async (answers) => {
  const all = [];
  for await (const one of answers) all.push(one);
  return all;
};

test('every method', async () => {
  const [alice, bob, carol] = [await join('alice'), await join('bob'), await join('carol')];
  await profile(alice, bob);
  const conversation = await messages(alice, bob);
  await relations(alice, bob, conversation);
  await groups(alice, bob, carol);
  await files(alice, bob);
  await hooks(alice, bob);
  await keys(alice);
  await alice.client.deleteAgent(alice.handle);
  await assert.rejects(() => bob.client.getAgent(alice.handle), { code: 'AGENT_NOT_FOUND' });
  const methods = (of) => Object.getOwnPropertyNames(of).filter((name) => typeof of[name] === 'function');
  const all = [...methods(AgentChatClient), ...methods(AgentChatClient.prototype)];
  const internal = ['constructor', 'length', 'name', 'prototype', 'get', 'post', 'put', 'patch', 'del', 'request', 'toRequestOpts'];
  const missed = all.filter((name) => !called.has(name) && !internal.includes(name) && !name.startsWith('_'));
  assert.deepEqual(missed, [], 'not called');
});

async function profile({ client, handle }, bob) {
  const me = await client.getMe();
  assert.equal(me.handle, handle);
  assert.equal(me.settings.inbox_mode, 'open');
  assert.equal((await client.getAgent(bob.handle)).handle, bob.handle);
  await client.updateAgent(handle, { display_name: 'Alice' });
  const { avatar_url: url } = await client.setAvatar(handle, PNG, { contentType: 'image/png' });
  assert.equal((await fetch(url)).headers.get('content-type'), 'image/webp');
  assert.equal((await client.getMe()).avatar_url, url);
  await client.removeAvatar(handle);
}

async function messages(alice, bob) {
  const { message } = await alice.client.sendMessage({ to: bob.handle, content: { text: 'hello' } });
  const rows = await bob.client.sync({ limit: 10 });
  assert.deepEqual(rows.map((row) => row.id), [message.id]);
  assert.equal((await bob.client.syncAck(rows[0].delivery_id)).acked, 1);
  await bob.client.markAsRead(message.id);
  const conversation = message.conversation_id;
  assert.equal((await alice.client.getMessages(conversation, { aroundMessageId: message.id }))[0].status, 'read');
  const reply = await bob.client.sendMessage({ to: alice.handle, content: { text: 'hello back' } });
  await alice.client.deleteMessage(reply.message.id);
  assert.equal((await alice.client.getMessages(conversation)).length, 1);
  assert.equal((await alice.client.getConversationParticipants(conversation))[0].handle, bob.handle);
  assert.equal((await alice.client.getConversationContext(conversation)).counterparty.handle, bob.handle);
  assert.ok((await alice.client.listConversations()).some((one) => one.id === conversation));
  await alice.client.hideConversation(conversation);
  assert.ok(!(await alice.client.listConversations()).some((one) => one.id === conversation));
  return conversation;
}

async function relations(alice, bob, conversation) {
  const { client } = alice;
  await client.addContact(bob.handle);
  await client.updateContactNotes(bob.handle, 'met at work');
  assert.equal((await client.checkContact(bob.handle)).is_contact, true);
  assert.equal((await client.listContacts()).contacts[0].notes, 'met at work');
  assert.equal((await collect(client.contacts({ pageSize: 1 }))).length, 1);
  await bob.client.addContact(alice.handle);
  assert.equal((await client.updatePresence({ status: 'busy', custom_message: 'busy' })).status, 'busy');
  assert.equal((await bob.client.getPresence(alice.handle)).custom_message, 'busy');
  assert.equal((await bob.client.getPresenceBatch([alice.handle, 'nobody-has-this'])).presences.length, 2);
  assert.equal((await bob.client.searchAgents(alice.handle)).agents[0].in_contacts, true);
  assert.equal((await collect(bob.client.searchAgentsAll(alice.handle))).length, 1);
  await client.muteAgent(bob.handle, { mutedUntil: new Date(Date.now() + 60_000).toISOString() });
  await client.muteConversation(conversation);
  assert.equal((await client.listMutes()).mutes.length, 2);
  assert.equal((await client.getAgentMuteStatus(bob.handle)).target_kind, 'agent');
  assert.equal((await client.getConversationMuteStatus(conversation)).target_id, conversation);
  await client.unmuteAgent(bob.handle);
  await client.unmuteConversation(conversation);
  assert.equal(await client.getAgentMuteStatus(bob.handle), null);
  assert.equal(await client.getConversationMuteStatus(conversation), null);
  await client.blockAgent(bob.handle);
  await client.unblockAgent(bob.handle);
  await client.reportAgent(bob.handle, 'spam');
  await client.unblockAgent(bob.handle);
  await client.removeContact(bob.handle);
}

async function groups(alice, bob, carol) {
  const { client } = alice;
  const members = [bob.handle, carol.handle];
  const { group, add_results: results } = await client.createGroup({ name: 'Engineering', member_handles: members });
  assert.deepEqual(results.map((one) => one.outcome), ['joined', 'invited']);
  await carol.client.rejectGroupInvite((await carol.client.listGroupInvites())[0].id);
  const again = await client.addGroupMember(group.id, carol.handle);
  assert.equal((await carol.client.acceptGroupInvite(again.invite_id)).member_count, 3);
  assert.equal((await client.getGroup(group.id)).your_role, 'admin');
  assert.equal((await client.updateGroup(group.id, { name: 'Ops' })).name, 'Ops');
  assert.match((await client.setGroupAvatar(group.id, PNG)).avatar_url, /webp$/);
  await client.removeGroupAvatar(group.id);
  const sent = await client.sendMessage({ conversation_id: group.id, content: { text: 'hello all' } });
  assert.deepEqual(sent.message.skipped_recipients ?? sent.skippedRecipients, []);
  await client.promoteGroupMember(group.id, bob.handle);
  await client.demoteGroupMember(group.id, bob.handle);
  await client.removeGroupMember(group.id, carol.handle);
  assert.equal((await bob.client.leaveGroup(group.id)).promoted_handle, null);
  assert.ok((await client.deleteGroup(group.id)).deleted_at);
  await assert.rejects(() => client.getGroup(group.id), { code: 'GROUP_DELETED' });
}

async function files({ client }, bob) {
  const data = Buffer.from('attached');
  const upload = await client.createUpload({
    filename: 'a.txt',
    content_type: 'text/plain',
    size: data.length,
    sha256: createHash('sha256').update(data).digest('hex'),
    to: bob.handle,
  });
  assert.equal((await fetch(upload.upload_url, { method: 'PUT', body: data })).status, 200);
  const url = await client.getAttachmentDownloadUrl(upload.attachment_id);
  assert.equal(await (await fetch(url)).text(), 'attached');
}

async function hooks({ client, handle }, bob) {
  const calls = [];
  const receiver = createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      calls.push({ signature: request.headers['agentchat-signature'], payload: Buffer.concat(chunks) });
      response.writeHead(204).end();
    });
  });
  await new Promise((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${receiver.address().port}/`;
  try {
    const made = await client.createWebhook({ url, events: ['message.new'] });
    assert.equal((await client.listWebhooks()).webhooks[0].id, made.id);
    assert.equal((await client.getWebhook(made.id)).active, true);
    const { message } = await bob.client.sendMessage({ to: handle, content: { text: 'call' } });
    await until('the call', () => calls.length > 0);
    const call = { ...calls[0], secret: made.secret };
    const told = await verifyWebhook(call);
    assert.equal(told.data.id, message.id);
    const changed = Buffer.from(call.payload);
    changed[changed.length - 2] ^= 1;
    await assert.rejects(() => verifyWebhook({ ...call, payload: changed }), WebhookVerificationError);
    await client.deleteWebhook(made.id);
    assert.deepEqual((await client.listWebhooks()).webhooks, []);
  } finally {
    receiver.close();
    receiver.closeAllConnections();
  }
}

async function keys(alice) {
  const mailed = () => server.mailedCode(alice.email);
  const rotation = await alice.client.rotateKey(alice.handle); // answered after its mail was written
  const code = await mailed();
  const { api_key: apiKey } = await alice.client.rotateKeyVerify(alice.handle, rotation.pending_id, code);
  alice.client = watched(new AgentChatClient({ apiKey, baseUrl: server.base }));
  const before = await mailed();
  const { pending_id: pendingId } = await Client.recover(alice.email, { baseUrl: server.base });
  const again = await until('the recovery code', async () => (await mailed()) !== before && mailed());
  const recovered = await Client.recoverVerify(pendingId, again, { baseUrl: server.base });
  assert.equal(recovered.handle, alice.handle);
  alice.client = watched(recovered.client);
}
