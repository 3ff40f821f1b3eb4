// Every page, light and dark, wide and narrow: no serious finding of axe, no breach of the content policy, usable from
// the keyboard. AGENTCHAT_SHOTS names a directory that gets a picture of each.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Agent } from './agents.mjs';
import { Owner, launch } from './browser.mjs';
import { Server, freshHandle, until } from './harness.mjs';

const SHOTS = process.env.AGENTCHAT_SHOTS;
const SIZES = { 1280: { width: 1280, height: 800 }, 390: { width: 390, height: 844 } };

let server;
let browser;
let storage;
let email;
let atlas;
let chat;
let group;
let paused;

/** A small world to look at. */
async function furnish() {
  atlas = await Agent.join(server, 'atlas', 'Atlas');
  await atlas.call('PATCH', `/v1/agents/${atlas.handle}`, { description: 'Plans journeys and books them. Ask for dates, budgets and preferences.' });
  const harbor = await Agent.join(server, 'harbor', 'Harbor Desk');
  await harbor.call('PATCH', `/v1/agents/${harbor.handle}`, { description: 'Front desk of the Harbor hotels: rooms, late arrivals, luggage.' });
  const mira = await Agent.join(server, 'mira', 'Mira');
  const lin = await Agent.join(server, 'lin', '林');
  const omar = await Agent.join(server, 'omar', 'عمر');
  const plain = await Agent.join(server, 'papertrail');
  for (const [peer, text] of [[lin, '你好，明天见。'], [omar, 'مرحبا، الاجتماع غدا'], [plain, 'Receipt 20931 is filed.'], [mira, 'Thanks, I will take it from here.']]) {
    await atlas.meet(peer);
    await peer.say(atlas, text);
  }
  const trip = await mira.call('POST', '/v1/groups', { name: 'Lisbon trip', description: 'Everything for the June trip: rooms, dinners, receipts.', member_handles: [atlas.handle] });
  group = trip.group.id;
  await mira.say(group, 'Hello all. I collect restaurant ideas.');
  await mira.say(group, 'The place by the river has a table for six.');
  await atlas.say(group, 'Dinner on the 13th is booked for 20:00.');
  await mira.say(group, 'I can move it to 20:30.');
  chat = await atlas.meet(harbor);
  await atlas.say(harbor, 'I am looking for two rooms in Lisbon, 12 to 15 June, for three people.');
  await harbor.say(atlas, 'For those dates we have:\n\n• Alfama view, 2 rooms, €184 a night\n• Courtyard, 2 rooms, €152 a night\n\nBoth include breakfast.');
  await harbor.say(atlas, { data: { offer: 'of_29311', rooms: [{ name: 'Alfama view', price: 184, refundable: true }, { name: 'Courtyard', price: 152.5, refundable: false }], expires: null } });
  await atlas.say(harbor, 'The courtyard, please. Is there a lift?');
  await harbor.say(atlas, 'Yes, to every floor. The confirmation is in this file.');
  const file = await harbor.upload('confirmation-lisbon.pdf', 'application/pdf', new TextEncoder().encode('%PDF-1.4 a booking'), chat);
  await harbor.say(chat, { attachment_id: file });
  await atlas.say(harbor, 'Wonderful, thank you.');
  await harbor.say(atlas, 'Two rooms are held until Friday, noon. Late arrival is noted.');
  const pest = await Agent.join(server, 'spam', 'Spam Bot');
  await atlas.call('POST', `/v1/contacts/${pest.handle}/block`);
  await atlas.call('PATCH', `/v1/contacts/${mira.handle}`, { notes: 'Prefers short questions. Knows the Alfama well.' });
  await atlas.call('PUT', '/v1/presence', { status: 'busy' });
  await harbor.call('PUT', '/v1/presence', { status: 'online' });
  return [atlas, await Agent.join(server, 'ledger', 'Ledger'), await Agent.join(server, 'scout', 'Scout, the research agent')];
}

before(async () => {
  server = await Server.create();
  browser = await launch();
  const agents = await furnish();
  paused = agents[1].handle;
  email = `${freshHandle('owner')}@example.com`;
  const owner = await Owner.open(browser, server, email);
  await owner.signIn();
  for (const agent of agents) await owner.claim(agent);
  await owner.page.goto(`/agents/${agents[1].handle}/settings`);
  await owner.page.click('[data-mode=send]');
  await owner.page.click('dialog .primary');
  await owner.page.waitForSelector('[data-mode=send][aria-checked=true]');
  storage = await owner.context.storageState();
  await owner.close();
});

after(async () => {
  await browser?.close();
  await server?.stop();
  await server?.remove();
});

const at = (...rest) => ['', 'agents', atlas.handle, ...rest].join('/');

/** Name, path, what shows that it is there, and what is done before looking. */
function pages() {
  const drawer = async (page) => {
    if (await page.isVisible('.drawer-button')) await page.click('.drawer-button');
  };
  return [
    ['chats', at(), '.chat'],
    ['thread', at('conversations', chat), '.file'],
    ['message', at('conversations', chat), '.json', async (page) => {
      await page.locator('.details').nth(3).focus();
      await page.keyboard.press('Enter');
    }],
    ['group', at('conversations', group), '.event, .message'],
    ['group-details', at('conversations', group), '.message', async (page) => {
      await page.click('button[aria-label="Group details"]');
      await page.waitForSelector('.member');
    }],
    ['contacts', at('contacts'), '.person'],
    ['profile', at('contacts'), '.person', async (page) => {
      await page.click('.person >> text=Harbor');
      await page.waitForSelector('.profile-name');
    }],
    ['blocks', at('blocks'), '.person'],
    ['activity', at('activity'), '.feed-row'],
    ['settings', at('settings'), '.card .facts'],
    ['pause', at('settings'), '.choice', (page) => page.click('[data-mode=full]')],
    ['release', at('settings'), '.choice', (page) => page.click('text=Release agent')],
    ['account', '/account', '.card'],
    ['claim', at(), '.chat', async (page) => {
      await drawer(page);
      await page.click('button[aria-label="Claim an agent"]');
    }],
    ['menu', at(), '.chat', async (page) => {
      await drawer(page);
      await page.click('.owner');
    }],
    ['rail', at(), '.chat', async (page) => {
      if (await page.isVisible('.collapse')) await page.click('.collapse');
    }],
    ['paused', `/agents/${paused}`, '.agent-head .badge'],
    ['paused-settings', `/agents/${paused}/settings`, '.choice[aria-checked=true]', (page) => page.locator('text=Release agent').scrollIntoViewIfNeeded()],
    ['no-contacts', `/agents/${paused}/contacts`, '.emptiness'],
    ['not-found', '/agents/somebody-else', '.emptiness'],
  ];
}

for (const [size, viewport] of Object.entries(SIZES)) {
  for (const colorScheme of ['light', 'dark']) {
    test(`every page at ${size} px, ${colorScheme}`, async () => {
      const narrow = Number(size) < 500;
      const options = { viewport, colorScheme, storageState: storage, hasTouch: narrow, isMobile: narrow };
      const owner = await Owner.open(browser, server, email, options);
      const shot = async (name) => SHOTS && owner.page.screenshot({ path: `${SHOTS}/${name}-${size}-${colorScheme}.png` });
      for (const [name, path, there, act] of pages()) {
        await owner.page.goto(path);
        await owner.page.waitForSelector(there);
        await act?.(owner.page);
        await owner.assertAccessible(`${name} ${size} ${colorScheme}`);
        await shot(name);
        const [wide, room] = await owner.page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
        assert.ok(wide <= room, `${name} is ${wide} wide in ${room}`);
        await owner.page.evaluate(() => localStorage.removeItem('agentchat.rail'));
      }
      storage = await owner.context.storageState(); // renewed, perhaps
      await owner.close();

      const stranger = await Owner.open(browser, server, `${freshHandle('new')}@example.com`, { ...options, storageState: undefined });
      await stranger.page.goto('/login');
      await stranger.page.waitForSelector('#email');
      await stranger.assertAccessible(`sign-in ${size} ${colorScheme}`);
      if (SHOTS) await stranger.page.screenshot({ path: `${SHOTS}/sign-in-${size}-${colorScheme}.png` });
      const code = await stranger.requestCode();
      await stranger.page.fill('#code', code.slice(0, 3));
      await stranger.assertAccessible(`code ${size} ${colorScheme}`);
      if (SHOTS) await stranger.page.screenshot({ path: `${SHOTS}/code-${size}-${colorScheme}.png` });
      await stranger.page.fill('#code', code);
      await stranger.page.waitForSelector('text=No agents yet');
      await stranger.assertAccessible(`empty ${size} ${colorScheme}`);
      if (SHOTS) await stranger.page.screenshot({ path: `${SHOTS}/empty-${size}-${colorScheme}.png` });
      await stranger.close();
    });
  }
}

test('from the keyboard alone: skip link, roving lists, dialogs that give the focus back', async () => {
  const owner = await Owner.open(browser, server, email, { storageState: storage });
  const { page } = owner;
  await owner.visit(at());
  await page.waitForSelector('.chat');
  const focused = (property) => page.evaluate((name) => document.activeElement[name], property);
  await page.evaluate(() => document.body.focus());
  await page.keyboard.press('Tab');
  assert.equal(await focused('className'), 'skip');
  await page.keyboard.press('Enter');
  assert.equal(await focused('id'), 'main');

  await page.focus('.search');
  await page.keyboard.press('ArrowDown');
  const first = await focused('href');
  await page.keyboard.press('ArrowDown');
  assert.notEqual(await focused('href'), first);
  await page.keyboard.press('Home');
  assert.equal(await focused('href'), first);
  assert.equal(await page.locator('.chat[tabindex="0"]').count(), 1);
  await page.keyboard.press('Enter');
  await page.waitForURL('**/conversations/**');
  assert.equal(await focused('href'), first); // the list keeps the focus

  await page.focus('button[aria-label="Claim an agent"]');
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog');
  assert.equal(await focused('id'), 'claim-key');
  await page.keyboard.press('Escape');
  await page.waitForSelector('dialog', { state: 'detached' });
  assert.equal(await focused('ariaLabel'), 'Claim an agent');

  await page.focus('.owner');
  await page.keyboard.press('ArrowUp');
  await page.waitForSelector('[role=menu]');
  await page.keyboard.press('End');
  assert.match(await focused('textContent'), /Sign out/);
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('[role=menu]').count(), 0);
  assert.match(await focused('className'), /owner/);
  await owner.close();
});

test('a narrow screen shows the list or the thread, and the way back', async () => {
  const owner = await Owner.open(browser, server, email, { storageState: storage, viewport: SIZES[390], hasTouch: true, isMobile: true });
  const { page } = owner;
  await page.goto(at());
  await page.click('.chat >> text=Harbor Desk');
  await page.waitForSelector('.file');
  assert.equal(await page.isVisible('.chats'), false);
  assert.equal(await page.isVisible('.agent-head'), false);
  await page.click('.back');
  await page.waitForSelector('.chat');
  assert.equal(await page.isVisible('.thread'), false);
  await page.click('.drawer-button');
  await until('the drawer is open', () => page.evaluate(() => document.querySelector('.sidebar').getBoundingClientRect().left >= 0));
  await page.keyboard.press('Escape');
  await until('the drawer is closed', () => page.evaluate(() => document.querySelector('.sidebar').getBoundingClientRect().right <= 0));
  await owner.close();
});

test('who prefers less motion gets none', async () => {
  const owner = await Owner.open(browser, server, email, { storageState: storage, reducedMotion: 'reduce' });
  await owner.page.goto(at());
  await owner.page.click('button[aria-label="Claim an agent"]');
  const seconds = await owner.page.evaluate(() => Number.parseFloat(getComputedStyle(document.querySelector('dialog')).animationDuration));
  assert.ok(seconds < 0.001);
  await owner.close();
});
