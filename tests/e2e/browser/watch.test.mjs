// What an owner sees of an agent, as it happens.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Agent } from './agents.mjs';
import { Owner, launch } from './browser.mjs';
import { Server, freshHandle, until } from './harness.mjs';

/** More than the page keeps as elements at a time. */
const LONG = 320;

let server;
let browser;
let owner;
let page;
let ada;
let bob;
let chat;

before(async () => {
  server = await Server.create();
  browser = await launch();
  ada = await Agent.join(server, 'ada', 'Ada');
  bob = await Agent.join(server, 'bob', 'Bob');
  chat = await ada.meet(bob);
  owner = await Owner.open(browser, server, `${freshHandle('owner')}@example.com`);
  page = owner.page;
  await owner.signIn();
});

after(async () => {
  await owner?.close();
  await browser?.close();
  await server?.stop();
  await server?.remove();
});

const at = (...rest) => ['', 'agents', ada.handle, ...rest].join('/');
const conversation = (id) => at('conversations', id);

test('a key claims its agent; a wrong one and a second claim are refused in words', async () => {
  await page.click('.emptiness button');
  assert.equal(await page.getAttribute('#claim-key', 'type'), 'password');
  await page.fill('#claim-key', 'ac_live_nobody');
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('#claim-problem >> text=No agent has this key');
  await page.keyboard.press('Escape');
  await page.waitForSelector('dialog', { state: 'detached' });
  await owner.claim(ada);
  await page.waitForSelector('h1 >> text=Ada');
  await page.waitForSelector('.chat-name >> text=Bob');
  await page.click('button[aria-label="Claim an agent"]');
  await page.fill('#claim-key', ada.key);
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('#claim-problem >> text=claimed already');
  await page.keyboard.press('Escape');
  await page.goto('/'); // the last one viewed
  await page.waitForURL(`**${at()}`);
});

test('messages appear as they are sent and received, and no answer leaves a trace', async () => {
  await owner.visit(conversation(chat));
  await page.waitForSelector('.message.own >> text=Hello');
  await bob.say(ada, 'live to ada');
  await owner.seesLast('live to ada');
  await ada.say(bob, 'live to bob');
  await owner.seesLast('live to bob');
  assert.match(await page.textContent('.chat[aria-current]'), /You: live to bob/);
  assert.equal(await page.locator('.message.other').last().locator('.text').textContent(), 'live to ada');
  const unread = (await ada.call('GET', '/v1/conversations')).find?.((one) => one.id === chat);
  assert.equal(unread.unread_count, 2); // what the owner has read, the agent has not
  assert.equal(await page.title(), 'Bob · Ada · AgentChat');
});

test('a stranger who writes appears in the list', async () => {
  await owner.visit(at());
  const carol = await Agent.join(server, 'carol', 'Carol');
  await carol.say(ada, 'first contact');
  await page.waitForSelector('.chat >> text=first contact');
  assert.match(await page.locator('.chat').first().textContent(), /Carol/);
  await page.fill('.search', 'carol');
  await until('the search leaves one', async () => (await page.locator('.chat').count()) === 1);
  await page.fill('.search', 'no such words');
  await page.waitForSelector('text=Nothing found');
  await page.fill('.search', '');
  assert.equal(await page.locator('text=/unread/i').count(), 0);
});

test('what a far end sent while the feed was away is there when it is back', async () => {
  await owner.visit(conversation(chat));
  await page.route('**/dashboard/ws/ticket', (route) => route.abort());
  await server.stop();
  await server.start();
  await page.waitForSelector('.live >> text=Reconnecting');
  await bob.say(ada, 'while you were away');
  await page.unroute('**/dashboard/ws/ticket');
  await owner.seesLast('while you were away');
  await owner.live();
});

test('a tab that nobody looks at gives its socket back, and takes it again', async () => {
  await owner.visit(conversation(chat));
  const look = (hidden) =>
    page.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => value });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
  await look(true);
  await page.waitForSelector('.live >> text=Reconnecting');
  await bob.say(ada, 'to a hidden tab');
  await look(false);
  await owner.live();
  await owner.seesLast('to a hidden tab');
});

test('older history comes by scrolling, stays where it is read, and never fills the page', async () => {
  const dora = await Agent.join(server, 'dora', 'Dora');
  const long = await ada.meet(dora);
  for (let number = 1; number <= LONG; number += 1) await dora.say(ada, `line ${number}${number % 9 === 0 ? `\n${'and more words '.repeat(12)}` : ''}`);
  const asked = [];
  const note = (request) => request.url().includes('before_seq') && asked.push(request.url());
  page.on('request', note);
  await owner.visit(conversation(long));
  await page.waitForSelector(`.message >> text=line ${LONG}`);
  assert.ok((await page.locator('.message').count()) <= 50, 'one page at first');
  assert.equal(asked.length, 0);

  const numbers = () => page.locator('.message').evaluateAll((all) => all.map((node) => Number(node.dataset.seq)));
  // Far enough up to make it load; answers the line that the reader looks at.
  const up = () =>
    page.evaluate(() => {
      const scroller = document.querySelector('.thread-scroll');
      scroller.scrollTop = 40;
      const edge = scroller.getBoundingClientRect().top;
      const node = [...document.querySelectorAll('.message')].find((one) => one.getBoundingClientRect().bottom > edge);
      return { seq: node.dataset.seq, y: node.getBoundingClientRect().top };
    });
  const place = (seq) => page.evaluate((one) => document.querySelector(`.message[data-seq="${one}"]`).getBoundingClientRect().top, seq);
  let moves = 0;
  for (let first = (await numbers())[0]; first > 1; ) {
    const seen = await up();
    first = await until('older messages are there', async () => {
      const now = (await numbers())[0];
      return now < first || now === 1 ? now : undefined;
    });
    assert.ok(Math.abs((await place(seen.seq)) - seen.y) <= 2, `message ${seen.seq} moved from ${seen.y} to ${await place(seen.seq)}`);
    const shown = await numbers();
    assert.ok(shown.length <= 250, `${shown.length} messages are elements`);
    assert.deepEqual(shown, [...new Set(shown)].sort((a, b) => a - b));
    moves += 1;
  }
  assert.ok(moves >= 5, `${moves} pages`);
  assert.ok(asked.length >= 6 && new Set(asked).size === asked.length, 'a page was asked for twice');
  await page.waitForSelector('text=Beginning of what this agent can see');
  assert.equal((await numbers())[0], 1);

  await dora.say(ada, 'new while reading old ones');
  await page.waitForSelector('.latest.news');
  assert.equal((await numbers())[0], 1);
  await page.click('.latest');
  await owner.seesLast('new while reading old ones');
  assert.ok((await numbers()).length <= 250);
  // And back up again, from memory.
  const before = asked.length;
  await page.evaluate(() => document.querySelector('.thread-scroll').scrollTo(0, 0));
  await until('memory has it', async () => (await numbers())[0] < LONG - 60);
  assert.equal(asked.length, before);
  page.off('request', note);
});

test('a group: names above clusters, events as sentences, details beside it', async () => {
  const eve = await Agent.join(server, 'eve', 'Eve');
  await ada.meet(eve);
  const { group } = await bob.call('POST', '/v1/groups', { name: 'Night shift', description: 'Who watches when.', member_handles: [ada.handle] });
  await bob.call('PATCH', `/v1/groups/${group.id}`, { name: 'Late shift' });
  await bob.say(group.id, 'I take Monday');
  await owner.visit(at());
  await page.click('[role=tab] >> text=Groups');
  await page.click('.chat >> text=Late shift');
  await page.waitForSelector('.event >> text=named the group “Late shift”');
  await owner.seesLast('I take Monday');
  assert.equal(await page.textContent('.message.last .cluster-name'), 'Bob');
  await bob.say(group.id, 'and Tuesday');
  await owner.seesLast('and Tuesday');
  assert.equal(await page.locator('.message.first').count(), 1);
  await page.click('button[aria-label="Group details"]');
  await page.waitForSelector('.group-panel >> text=Who watches when.');
  // In the order of the service: by when they joined, and of one moment by handle.
  const { members } = await bob.call('GET', `/v1/groups/${group.id}`);
  assert.deepEqual(members.map((member) => member.display_name).sort(), ['Ada', 'Bob']);
  const shown = await page.locator('.member .person-name').allTextContents();
  assert.deepEqual(shown, members.map((member) => member.display_name));
  await page.click('.member >> text=Bob');
  await page.waitForSelector('dialog .profile-name >> text=Bob');
  await page.keyboard.press('Escape');
  await page.waitForSelector('dialog', { state: 'detached' });
  await page.keyboard.press('Escape');
  await page.waitForSelector('.group-panel', { state: 'detached' });
});

test('contacts, blocks and activity', async () => {
  await ada.call('PATCH', `/v1/contacts/${bob.handle}`, { notes: 'Met at the <b>harbour</b>.' });
  await owner.visit(at('contacts'));
  await page.waitForSelector('.person-note >> text=Met at the <b>harbour</b>.');
  await owner.visit(at('blocks'));
  await page.waitForSelector('text=Nobody is blocked');
  const pest = await Agent.join(server, 'pest', 'Pest');
  await ada.call('POST', `/v1/contacts/${pest.handle}/block`);
  await page.waitForSelector('.person-name >> text=Pest');
  await page.click('nav >> text=Activity');
  await page.waitForSelector(`.feed-row >> text=Blocked @${pest.handle}`);
  // Everything that happened, page by page, each entry once.
  const total = () => page.locator('.feed-row').count();
  while ((await page.locator('.more button').count()) > 0) {
    const had = await total();
    await page.click('.more button');
    await until('older entries', async () => (await total()) > had || (await page.locator('.more button').count()) === 0);
  }
  await page.waitForSelector(`.feed-row >> text=Received a message from @${bob.handle} >> nth=0`);
  assert.equal(await page.locator('.feed-row >> text=You claimed this agent').count(), 1);
  assert.equal(await page.locator('.feed-row >> text=Agent registered').count(), 1);
  await bob.say(ada, 'for the feed');
  await until('the feed is live', async () => /Received a message/.test(await page.locator('.feed-row').first().textContent()));
  await page.locator('.feed-row.link').first().click();
  await owner.seesLast('for the feed');
});

test('a second owner who tries the key is refused, and the first is told', async () => {
  const stranger = await Owner.open(browser, server, `${freshHandle('stranger')}@example.com`);
  await stranger.signIn();
  await stranger.page.click('.emptiness button');
  await stranger.page.fill('#claim-key', ada.key);
  await stranger.page.click('dialog button[type=submit]');
  await stranger.page.waitForSelector('#claim-problem >> text=claimed already');
  await stranger.page.goto(at());
  await stranger.page.waitForSelector('text=is not one of your agents');
  await stranger.close();
  await owner.visit(at('activity'));
  await page.waitForSelector('.feed-row >> text=Somebody else tried to claim this agent');
  assert.match(await page.textContent('.feed-more'), /127\.0\.0\.1 · .*Chrome/);
});

test('hostile content is text, whatever it looks like', async () => {
  const mallory = await Agent.join(server, 'mallory', '<img src=x onerror=alert(1)>');
  const id = await ada.meet(mallory);
  const texts = [
    '<script>alert(1)</script>',
    '"><img src=x onerror="alert(2)"><svg onload=alert(3)>',
    '[link](javascript:alert(4)) https://elsewhere.example/',
    '\u202Egnp.exe\u202C \u2067שלום\u2069',
    'w'.repeat(30_000),
    '👩‍👩‍👧‍👦🏳️‍🌈 Z̷̡̛a̶l̵g̸o̶ \u0000'.replace('\u0000', '\u0007'),
    '\n'.repeat(40),
  ];
  for (const text of texts) await mallory.say(ada, text);
  let deep = { end: '</pre><script>alert(5)</script>' };
  for (let level = 0; level < 60; level += 1) deep = { [`<b>${level}</b>`]: deep };
  await mallory.say(ada, { data: deep });
  await mallory.say(ada, { data: { ['__proto__']: { polluted: true }, list: [1, -2.5e3, true, null, 'x'], text: 'a "quoted" one' } });
  await mallory.say(ada, { text: 'both', data: { answer: 42 } }, { metadata: { note: '<i>meta</i>' } });
  await owner.visit(conversation(id));
  await page.waitForSelector('.message >> text=both');
  const shown = await owner.texts();
  for (const text of texts) assert.ok(shown.includes(text), JSON.stringify(text.slice(0, 60)));
  assert.equal(await page.locator('.messages script, .messages img, .messages b, .messages i, .chats img, .chats script').count(), 0);
  assert.equal(await page.textContent('.thread-head h2'), '<img src=x onerror=alert(1)>');
  assert.ok(await page.locator('.json').first().textContent().then((text) => text.includes('<script>alert(5)</script>')));
  assert.equal(await page.evaluate(() => ({}).polluted), undefined);
  const [wide, room] = await page.evaluate(() => [document.querySelector('.thread-scroll').scrollWidth, document.querySelector('.thread-scroll').clientWidth]);
  assert.ok(wide <= room, `the thread is ${wide} wide in ${room}`);
  // A direction that was turned round inside a message ends with it.
  assert.equal(await page.locator('.text').evaluateAll((all) => all.every((node) => node.dir === 'auto')), true);
  await page.locator('.message.last .details').last().focus();
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog >> text=<i>meta</i>');
  await page.keyboard.press('Escape');
});

test('an attachment is a card, and its bytes come when asked for', async () => {
  const bytes = new TextEncoder().encode('the whole report');
  const id = await bob.upload('report.txt', 'text/plain', bytes, chat);
  await bob.say(chat, { attachment_id: id });
  await owner.visit(conversation(chat));
  const card = page.locator('.file').last();
  await card.waitFor();
  assert.match(await card.textContent(), /report\.txt/);
  const answer = await owner.context.request.get(await card.getAttribute('href'));
  assert.equal(await answer.text(), 'the whole report');
});

test('a conversation of nobody, an agent of somebody else, a page that is none', async () => {
  await owner.visit(conversation('conv_0000000000000000'));
  await page.waitForSelector('text=This conversation is not visible');
  await owner.visit('/agents/somebody-else');
  await page.waitForSelector('text=is not one of your agents');
  const answer = await owner.context.request.get('/agents/a/b/c');
  assert.equal(answer.status(), 404);
});

/** Keeps the focused element in the page, to be told from one that only looks like it. */
const hold = () => page.evaluate(() => void (window.held = document.activeElement));
const isHeld = () => page.evaluate(() => window.held === document.activeElement && window.held.isConnected);
const focusedText = () => page.evaluate(() => document.activeElement.textContent);

test('what happens meanwhile takes the focus from nobody', async () => {
  const [first, second, third] = [await Agent.join(server, 'focus', 'First'), await Agent.join(server, 'focus', 'Second'), await Agent.join(server, 'focus', 'Third')];
  const block = (agent) => ada.call('POST', `/v1/contacts/${agent.handle}/block`);

  await owner.visit(at('contacts'));
  await page.focus('.person:has-text("Bob")');
  await hold();
  await ada.meet(third); // a new contact, told by what follows
  await block(first);
  await page.waitForSelector('.person:has-text("Third")');
  assert.ok(await isHeld(), 'contacts: another entry came');
  await ada.call('PATCH', `/v1/contacts/${bob.handle}`, { notes: 'Changed while it has the focus' });
  await block(second);
  await page.waitForSelector('.person-note >> text=Changed while it has the focus');
  assert.match(await focusedText(), /Bob.*Changed while/, 'contacts: its own text changed');

  await page.focus('.view:has-text("Blocks")');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.person:has-text("Second")');
  assert.equal(await focusedText(), 'Blocks', 'the view that was chosen');
  await page.focus('.person:has-text("First")');
  await hold();
  await block(third);
  await page.waitForSelector('.person:has-text("Third")');
  assert.ok(await isHeld(), 'blocks');

  for (let number = 1; number <= 60; number += 1) await bob.say(ada, `more than a page ${number}`);
  await page.click('.view >> text=Activity');
  await page.waitForSelector('.more button');
  await page.focus('.feed-row.link >> nth=0');
  await hold();
  const newest = async () => (await page.locator('.feed-row').first().textContent()).includes('Received a message');
  await bob.say(ada, 'while a row has the focus');
  await until('the feed has it', newest);
  assert.ok(await isHeld(), 'activity: a row');
  await page.focus('.more button');
  await hold();
  await ada.call('POST', `/v1/contacts/${second.handle}/report`);
  await page.waitForSelector(`.feed-row >> text=Reported @${second.handle}`);
  assert.ok(await isHeld(), 'activity: the way to older entries');
  const had = await page.locator('.feed-row').count();
  await page.keyboard.press('Enter');
  await until('older entries', async () => (await page.locator('.feed-row').count()) > had);
  if ((await page.locator('.more button').count()) > 0) await until('the button has the focus again', isHeld);
});

test('an agent that is claimed under its own address appears there, in every tab', async () => {
  const fred = await Agent.join(server, 'fred', 'Fred');
  const other = await owner.tab();
  await other.goto(`/agents/${fred.handle}/contacts`);
  await other.waitForSelector('text=is not one of your agents');
  await owner.live(other);
  await owner.visit(`/agents/${fred.handle}`);
  await page.waitForSelector('text=is not one of your agents');
  await owner.claim(fred);
  await page.waitForSelector('h1 >> text=Fred');
  await page.waitForSelector('text=No chats yet');
  await other.waitForSelector('h2 >> text=Contacts');
  await other.close();
});
