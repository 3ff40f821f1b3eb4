// The pause switch, seen from both sides, and the end of a claim.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Agent } from './agents.mjs';
import { Owner, launch } from './browser.mjs';
import { Server, freshHandle, until } from './harness.mjs';

let server;
let browser;
let owner;
let page;
let ada;
let bob;
let chat;
let socket;
const frames = [];

before(async () => {
  server = await Server.create();
  browser = await launch();
  ada = await Agent.join(server, 'ada', 'Ada');
  bob = await Agent.join(server, 'bob', 'Bob');
  chat = await ada.meet(bob);
  owner = await Owner.open(browser, server, `${freshHandle('owner')}@example.com`);
  page = owner.page;
  await owner.signIn();
  await owner.claim(ada);
  await owner.live();
  // The agent's own live socket, from inside a page: node 20 has none.
  socket = await (await browser.newContext()).newPage();
  await socket.exposeFunction('took', (text) => void frames.push(JSON.parse(text)));
  await socket.goto(`${server.base}/healthz`);
  await socket.evaluate(([url, key]) => {
    window.feed = new WebSocket(url);
    window.feed.onopen = () => window.feed.send(JSON.stringify({ type: 'hello', api_key: key }));
    window.feed.onmessage = (event) => window.took(event.data);
  }, [`${server.wsBase}/v1/ws`, ada.key]);
  await until('hello.ok', () => frames.some((frame) => frame.type === 'hello.ok'));
});

after(async () => {
  await owner?.close();
  await browser?.close();
  await server?.stop();
  await server?.remove();
});

const arrived = () => frames.filter((frame) => frame.type === 'message.new' && frame.payload.sender === bob.handle).map((frame) => frame.payload.content.text);

/** Chooses a mode on the settings page and confirms what it means. */
async function choose(mode, explained) {
  await owner.visit(`/agents/${ada.handle}/settings`);
  await page.click(`[data-mode=${mode}]`);
  await page.waitForSelector(`dialog >> text=${explained}`);
  await page.click('dialog .dialog-foot .primary');
  await page.waitForSelector('dialog', { state: 'detached' });
  await page.waitForSelector(`[data-mode=${mode}][aria-checked=true]`);
}

test('cancelling changes nothing', async () => {
  await owner.visit(`/agents/${ada.handle}/settings`);
  await page.click('[data-mode=full]');
  await page.click('dialog >> text=Cancel');
  await page.waitForSelector('dialog', { state: 'detached' });
  assert.equal(await page.getAttribute('[data-mode=none]', 'aria-checked'), 'true');
  assert.equal((await ada.call('GET', '/v1/agents/me')).paused_by_owner, 'none');
});

test('send paused: its sends are refused, what others write still flows', async () => {
  await choose('send', 'Every send of this agent will be refused');
  await page.waitForSelector('.agent-head .badge >> text=Send paused');
  const refused = await ada.send(bob, 'not now');
  assert.deepEqual([refused.status, refused.body.code], [403, 'AGENT_PAUSED_BY_OWNER']);
  await bob.say(ada, 'still flows');
  await until('the agent gets it', () => arrived().includes('still flows'));
  await owner.visit(`/agents/${ada.handle}/conversations/${chat}`);
  await owner.seesLast('still flows');
});

test('fully paused: nothing arrives, sync is empty, the owner sees it all', async () => {
  await choose('full', 'nothing reaches this agent');
  await page.waitForSelector('.agent-head .badge >> text=Fully paused');
  await owner.visit(`/agents/${ada.handle}/conversations/${chat}`);
  const had = arrived().length;
  for (const text of ['parked 1', 'parked 2', 'parked 3']) await bob.say(ada, text);
  await owner.seesLast('parked 3');
  assert.deepEqual(await ada.call('GET', '/v1/messages/sync'), []);
  assert.equal((await ada.send(bob, 'not now')).status, 403);
  assert.equal(arrived().length, had);
});

test('the end of the pause delivers what was parked, in order', async () => {
  const had = arrived().length;
  await choose('none', 'Sending works again at once');
  await until('three more', () => arrived().length === had + 3);
  assert.deepEqual(arrived().slice(had), ['parked 1', 'parked 2', 'parked 3']);
  await ada.say(bob, 'back again');
  await owner.visit(`/agents/${ada.handle}/activity`);
  for (const words of ['Sending paused', 'Fully paused', 'Pause ended']) await page.waitForSelector(`.feed-row >> text=${words}`);
});

test('another browser of the owner sees the pause without a reload', async () => {
  const second = await Owner.open(browser, server, owner.email);
  await second.signIn();
  await second.visit(`/agents/${ada.handle}`);
  await choose('send', 'Every send of this agent will be refused');
  await second.page.waitForSelector('.agent-head .badge >> text=Send paused');
  await second.close();
});

test('releasing asks first, ends the pause, and the same key claims again', async () => {
  await owner.visit(`/agents/${ada.handle}/settings`);
  await page.click('text=Release agent');
  await page.click('dialog .danger');
  await page.waitForSelector('text=No agents yet');
  await until('the pause has ended', async () => (await ada.call('GET', '/v1/agents/me')).paused_by_owner === 'none');
  await owner.claim(ada);
  await page.waitForSelector('.chat-name >> text=Bob');
});
