// Signing in and out, and the session in between.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Agent } from './agents.mjs';
import { Owner, launch } from './browser.mjs';
import { Server, freshHandle, until } from './harness.mjs';

let server;
let browser;
const owners = [];

before(async () => {
  server = await Server.create();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
  await server?.remove();
});

const fresh = () => `${freshHandle('owner')}@example.com`;

/** A profile of this test, closed and judged at its end. */
async function open(t, email = fresh(), options) {
  const owner = await Owner.open(browser, server, email, options);
  owners.push(owner);
  t.after(() => owner.close());
  return owner;
}

test('the mailed code signs in, a wrong one is told apart, and the way back keeps the address', async (t) => {
  const owner = await open(t);
  const { page } = owner;
  await page.goto('/');
  await page.waitForURL('**/login');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'email');
  const code = await owner.requestCode();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'code');
  await page.fill('#code', code === '000000' ? '111111' : '000000');
  await page.waitForSelector('#problem >> text=not the code');
  await page.click('text=Back');
  assert.equal(await page.inputValue('#email'), owner.email);
  const again = await owner.requestCode();
  await page.fill('#code', ` ${again.slice(0, 3)}-${again.slice(3)} `); // as people paste it
  await page.waitForSelector('text=No agents yet');
  assert.equal(new URL(page.url()).pathname, '/');
  assert.match(await page.textContent('.owner-email'), new RegExp(owner.email));
  await page.reload();
  await page.waitForSelector('text=No agents yet');
});

test('an address that is none never leaves the page, an expired code leads back to it', async (t) => {
  const owner = await open(t);
  const { page } = owner;
  await page.goto('/login');
  await page.fill('#email', 'nobody');
  await page.click('text=Continue with email');
  await page.waitForSelector('#problem >> text=Enter your email address');
  const code = await owner.requestCode();
  // A code lives ten minutes, so its end is told by the test.
  await page.route('**/dashboard/auth/otp/verify', (route) => route.fulfill({ status: 400, json: { code: 'EXPIRED', message: 'expired' } }));
  await page.fill('#code', code);
  await page.waitForSelector('#problem >> text=expired');
  assert.equal(await page.inputValue('#email'), owner.email);
});

test('a new code may be asked for after a while, and a refusal says how long', async (t) => {
  const owner = await open(t);
  const { page } = owner;
  await page.clock.install();
  await page.goto('/login');
  await owner.requestCode();
  const again = page.locator('.login-row button').nth(1);
  assert.match(await again.textContent(), /Send again in \d+ s/);
  assert.equal(await again.isDisabled(), true);
  await page.clock.runFor(62_000);
  assert.equal(await again.isDisabled(), false);
  await page.route('**/dashboard/auth/otp/request', (route) => route.fulfill({ status: 429, headers: { 'retry-after': '40' }, json: { code: 'OTP_COOLDOWN', message: 'wait' } }));
  await again.click();
  await page.waitForSelector('#problem >> text=in 40 seconds');
});

test('a deep link is where signing in leads to', async (t) => {
  const owner = await open(t);
  const { page } = owner;
  await page.goto('/account');
  await page.waitForURL('**/login?next=%2Faccount');
  const code = await owner.requestCode();
  await page.fill('#code', code);
  await page.waitForURL('**/account');
  await page.waitForSelector('h1 >> text=Account');
  await page.goto('/login?next=https://elsewhere.example/'); // signed in, and no way out of this site
  await page.waitForSelector('text=No agents yet');
  assert.equal(page.url(), `${server.base}/`);
});

test('two tabs renew the session once, and a failing server signs nobody out', async (t) => {
  const owner = await open(t);
  await owner.signIn();
  const { page } = owner;
  const other = await owner.tab();
  const renewals = [];
  owner.context.on('request', (request) => request.url().endsWith('/auth/refresh') && renewals.push(request));
  const ask = (tab) => tab.evaluate(() => window.dispatchEvent(new Event('online')));
  // The session grows old while no page of ours is open: one that is would begin to renew it, and be cut off by what follows.
  const grow = async (...tabs) => {
    for (const tab of tabs) await tab.goto('/healthz');
    await tabs[0].evaluate(() => localStorage.setItem('agentchat.renewed', String(Date.now() - 50 * 60_000)));
  };
  await grow(page, other);
  // Both ask at the same time.
  await Promise.all([page.goto('/'), other.goto('/account')]);
  await Promise.all([owner.live(page), owner.live(other)]);
  assert.equal(renewals.length, 1);

  await page.route('**/dashboard/auth/refresh', (route) => route.fulfill({ status: 503, json: { code: 'REFRESH_UNAVAILABLE', message: 'later' } }));
  await grow(page, other);
  await page.goto('/');
  await owner.live(page);
  await page.unroute('**/dashboard/auth/refresh');

  // Nothing is to be renewed any more: a renewal under way would bring the cookies back.
  await page.evaluate(() => localStorage.setItem('agentchat.renewed', String(Date.now())));
  await Promise.all([page.reload(), other.goto('/account')]);
  await Promise.all([owner.live(page), owner.live(other)]);
  await owner.context.clearCookies(); // as after thirty idle days
  await ask(page);
  await page.reload();
  for (const tab of [page, other]) await tab.waitForURL('**/login**');
});

test('signing out ends this browser only', async (t) => {
  const email = fresh();
  const [here, there] = [await open(t, email), await open(t, email)];
  await here.signIn();
  await there.signIn();
  await here.page.click('.owner');
  await here.page.click('[role=menuitem] >> text=Sign out');
  await here.page.waitForURL('**/login');
  assert.equal((await here.context.cookies()).filter((cookie) => cookie.value !== '').length, 0);
  await there.page.reload();
  await there.live();
});

test('signing out everywhere closes another browser at once', async (t) => {
  const email = fresh();
  const [here, there] = [await open(t, email), await open(t, email)];
  await here.signIn();
  await there.signIn();
  await there.live();
  await here.visit('/account');
  await here.page.click('text=Sign out of all devices');
  await here.page.click('dialog >> text=Sign out everywhere');
  await here.page.waitForURL('**/login');
  await there.page.waitForURL('**/login**'); // nobody touched it
  await there.page.goto('/account');
  await there.page.waitForURL('**/login**');
});

test('cookies are out of reach of scripts', async (t) => {
  const owner = await open(t);
  await owner.signIn();
  const cookies = await owner.context.cookies();
  assert.deepEqual(cookies.map((cookie) => [cookie.name, cookie.httpOnly, cookie.sameSite]).sort(), [
    ['ac_dashboard_refresh', true, 'Lax'],
    ['ac_dashboard_session', true, 'Lax'],
  ]);
  assert.equal(await owner.page.evaluate(() => document.cookie), '');
});

test('a sign-in that the browser does not keep is told, and does not lead round in circles', async (t) => {
  // Plain HTTP under a name that is not this machine's: the cookies are for HTTPS, and the browser drops them.
  const far = await Server.create();
  await far.stop();
  await writeFile(join(far.directory, 'agentchat.toml'), 'public_url = "http://chat.example"\n');
  await far.start();
  const other = await launch('--host-resolver-rules=MAP chat.example 127.0.0.1');
  t.after(async () => {
    await other.close();
    await far.stop();
    await far.remove();
  });
  const owner = await Owner.open(other, { base: `http://chat.example:${far.port}`, data: far.data }, fresh());
  await owner.page.goto('/login');
  await owner.page.fill('#code', await owner.requestCode());
  await owner.page.waitForSelector('#problem >> text=did not keep the sign-in');
  assert.equal(await owner.page.inputValue('#email'), owner.email);
  assert.deepEqual(await owner.context.cookies(), []);
  await owner.close();
});

test('colours are chosen, kept, and there before the page is', async (t) => {
  const owner = await open(t, fresh(), { colorScheme: 'light' });
  await owner.signIn();
  const { page } = owner;
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await page.click('.owner');
  await page.click('[role=menuitemradio] >> text=Dark');
  const dark = await background();
  assert.notEqual(dark, light);
  await page.route('**/main.js', (route) => route.abort()); // what paints first knows it already
  await page.reload();
  assert.equal(await background(), dark);
  await page.unroute('**/main.js');
  await page.reload();
  await page.click('.owner');
  assert.equal(await page.getAttribute('[role=menuitemradio]:has-text("Dark")', 'aria-checked'), 'true');
});

test('a lost claim is told, and the page moves on', async (t) => {
  const owner = await open(t);
  const agent = await Agent.join(server, 'lost', 'Lost');
  await owner.signIn();
  await owner.claim(agent);
  await owner.live();
  const { pending_id: pending } = await agent.call('POST', `/v1/agents/${agent.handle}/rotate-key`);
  const code = await server.mailedCode(`${agent.handle}@agents.example.com`);
  const { api_key: key } = await agent.call('POST', `/v1/agents/${agent.handle}/rotate-key/verify`, { pending_id: pending, code });
  await owner.page.waitForSelector(`.toast >> text=@${agent.handle} is no longer your agent`);
  await owner.page.waitForSelector('text=No agents yet');
  agent.key = key;
  await owner.claim(agent); // whoever holds the new key may claim
  await until('the agent is listed', async () => (await owner.page.locator('.agent').count()) === 1);
});
