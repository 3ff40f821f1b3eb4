// The whole life of an agent through the official TypeScript SDK: registration, live and offline messages, receipts,
// and a restart that the client survives by itself. No sequence gap and no message dispatched twice, anywhere.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { AgentChatClient, RealtimeClient } from 'agentchatme';
import WebSocket from 'ws';

import { Server, freshHandle, until } from './harness.mjs';

let server;
const open = new Set();

before(async () => {
  server = await Server.create();
});

after(async () => {
  for (const listener of open) listener.realtime.disconnect();
  await server?.stop();
  await server?.remove();
});

/** Registers and verifies through the SDK. */
async function join(stem) {
  const handle = freshHandle(stem);
  const email = `${handle}@example.com`;
  const { pending_id: pendingId } = await AgentChatClient.register({ email, handle, baseUrl: server.base });
  const code = await server.mailedCode(email);
  const { agent, apiKey, client } = await AgentChatClient.verify(pendingId, code, { baseUrl: server.base });
  assert.equal(agent.handle, handle);
  return { handle, apiKey, client };
}

/** A realtime client that writes down everything it is told. */
class Listener {
  messages = [];
  receipts = [];
  gaps = [];
  errors = [];
  connects = 0;
  disconnects = [];

  constructor({ apiKey, client }) {
    this.realtime = new RealtimeClient({
      apiKey,
      baseUrl: server.wsBase,
      client,
      webSocket: WebSocket,
      onSequenceGap: (gap) => this.gaps.push(gap),
    });
    this.realtime.on('message.new', ({ payload }) => void this.messages.push(payload));
    this.realtime.on('message.read', ({ payload }) => void this.receipts.push(payload));
    this.realtime.onError((error) => this.errors.push(error));
    this.realtime.onConnect(() => (this.connects += 1));
    this.realtime.onDisconnect((info) => this.disconnects.push(info));
    open.add(this);
  }

  async connect() {
    await this.realtime.connect();
    await until('hello.ok', () => this.connects > 0);
    return this;
  }

  close() {
    this.realtime.disconnect();
    open.delete(this);
  }

  texts() {
    return this.messages.map((message) => message.content.text);
  }

  assertCalm() {
    assert.deepEqual(this.gaps, []);
    const ids = this.messages.map((message) => message.id);
    assert.equal(new Set(ids).size, ids.length, 'a message was dispatched twice');
  }
}

const same = (left, right) => JSON.stringify(left) === JSON.stringify(right);
const count = (from, to) => Array.from({ length: to - from }, (_, index) => String(from + index));
const synced = (client) => until('everything is acknowledged', async () => (await client.sync()).length === 0);

test('profile, contacts and conversations have the shapes that the SDK types', async () => {
  const [alice, bob] = [await join('alice'), await join('bob')];
  const me = await alice.client.getMe();
  assert.deepEqual([me.handle, me.status, me.settings.inbox_mode], [alice.handle, 'active', 'open']);
  assert.equal((await bob.client.getAgent(`@${alice.handle.toUpperCase()}`)).handle, alice.handle);

  await alice.client.addContact(bob.handle);
  const { contacts, total } = await alice.client.listContacts();
  assert.deepEqual([contacts.map((contact) => contact.handle), total], [[bob.handle], 1]);
  assert.equal((await alice.client.checkContact(bob.handle)).is_contact, true);

  const { message } = await alice.client.sendMessage({ to: bob.handle, content: { text: 'hi' } });
  const [item] = await bob.client.listConversations();
  assert.deepEqual([item.id, item.participants[0].handle, item.unread_count], [message.conversation_id, alice.handle, 1]);
  const context = await bob.client.getConversationContext(item.id);
  assert.deepEqual([context.counterparty.handle, context.group], [alice.handle, null]);
});

test('live, reply, history, read receipt', async () => {
  const [alice, bob] = [await join('alice'), await join('bob')];
  const atAlice = await new Listener(alice).connect();
  const atBob = await new Listener(bob).connect();

  const { message: first } = await alice.client.sendMessage({ to: bob.handle, content: { text: '1' } });
  assert.deepEqual([first.seq, first.status, first.sender], [1, 'stored', alice.handle]);
  await until('the first message, live', () => same(atBob.texts(), ['1']));
  for (const number of count(2, 22)) {
    const [from, to] = Number(number) % 2 ? [alice, bob] : [bob, alice];
    await from.client.sendMessage({ to: to.handle, content: { text: number } });
  }
  const expected = count(1, 22);
  await until('both sides see everything', () => same(atAlice.texts(), expected) && same(atBob.texts(), expected));

  for (const { client } of [alice, bob]) {
    const rows = await client.getMessages(first.conversation_id, { afterSeq: 0, limit: 200 });
    assert.deepEqual(rows.map((row) => row.content.text), expected);
    const around = await client.getMessages(first.conversation_id, { aroundMessageId: rows[4].id, limit: 2 });
    assert.deepEqual(around.map((row) => row.seq), [5, 4]);
  }

  atBob.realtime.sendReadAck(first.conversation_id, 5);
  const receipt = await until('the receipt', () => atAlice.receipts.find((payload) => payload.through_seq === 5));
  assert.deepEqual([receipt.reader, receipt.conversation_id], [bob.handle, first.conversation_id]);
  const last = (await bob.client.getMessages(first.conversation_id, { limit: 1 }))[0];
  await bob.client.markAsRead(last.id);
  await until('the receipt over REST', () => atAlice.receipts.some((payload) => payload.message_id === last.id));

  for (const [listener, { client }] of [[atAlice, alice], [atBob, bob]]) {
    await synced(client);
    listener.assertCalm();
    assert.deepEqual(listener.errors, []);
    listener.close();
  }
});

test('offline messages: drained once, acknowledged, then live', async () => {
  const [alice, bob] = [await join('alice'), await join('bob')];
  await alice.client.sendMessage({ to: bob.handle, content: { text: 'cold' } });
  await bob.client.sendMessage({ to: alice.handle, content: { text: 'reply' } });
  const [cold] = await bob.client.sync();
  assert.deepEqual(await bob.client.syncAck(cold.delivery_id), { acked: 1 });

  // Within the server's window of unacknowledged frames, so that socket and REST drain cannot race into a gap.
  for (const number of count(0, 10)) await alice.client.sendMessage({ to: bob.handle, content: { text: number } });
  assert.equal((await bob.client.sync({ limit: 4 })).length, 4);
  const listener = await new Listener(bob).connect();
  await until('the backlog', () => same(listener.texts(), count(0, 10)));
  await synced(bob.client);
  await alice.client.sendMessage({ to: bob.handle, content: { text: 'live' } });
  await until('a live message after the backlog', () => same(listener.texts(), [...count(0, 10), 'live']));
  await synced(bob.client);
  listener.assertCalm();
  listener.close();
});

test('typed errors and a replay', async () => {
  const [alice, bob] = [await join('alice'), await join('bob')];
  const body = { to: bob.handle, client_msg_id: 'one', content: { text: 'cold' } };
  const { message } = await alice.client.sendMessage(body);
  assert.equal((await alice.client.sendMessage(body)).message.id, message.id);
  await assert.rejects(alice.client.sendMessage({ to: bob.handle, content: { text: 'again' } }), (error) => {
    assert.deepEqual([error.code, error.status, error.recipientHandle], ['AWAITING_REPLY', 403, bob.handle]);
    return true;
  });
  await assert.rejects(alice.client.getAgent('nobody-at-all'), { name: 'NotFoundError' });
  await bob.client.blockAgent(alice.handle);
  await assert.rejects(bob.client.sendMessage({ to: alice.handle, content: { text: 'x' } }), { name: 'BlockedError' });
});

test('the client reconnects by itself over a restart', async () => {
  const [alice, bob] = [await join('alice'), await join('bob')];
  const listener = await new Listener(bob).connect();
  await alice.client.sendMessage({ to: bob.handle, content: { text: 'before' } });
  await bob.client.sendMessage({ to: alice.handle, content: { text: 'answer' } });
  await until('the first messages', () => same(listener.texts(), ['before', 'answer']));
  await synced(bob.client);

  await server.stop();
  await until('the socket closed', () => listener.disconnects.length > 0);
  assert.ok(![1008, 4401, 4403].includes(listener.disconnects[0].code), 'a terminal code for a restart');
  await server.start();
  await alice.client.sendMessage({ to: bob.handle, content: { text: 'after' } });
  await until('the message after the restart', () => listener.texts().includes('after'), 45_000);
  assert.deepEqual(listener.texts(), ['before', 'answer', 'after']);
  await synced(bob.client);
  listener.assertCalm();
  listener.close();
});
