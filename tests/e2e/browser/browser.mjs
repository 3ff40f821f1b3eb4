// A browser with owners in it. Every page is watched: errors of scripts and breaches of the content policy fail a test.
import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

import { until } from './harness.mjs';

/** Debug builds on small shared machines are slow; every wait returns as soon as it can. */
const DEADLINE_MS = 20_000;
const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Starts Chromium, with more switches. */
export function launch(...switches) {
  const executablePath = process.env.AGENTCHAT_CHROMIUM;
  assert.ok(executablePath, 'AGENTCHAT_CHROMIUM names no browser');
  return chromium.launch({ executablePath, args: ['--no-sandbox', ...switches] });
}

/** One owner in one browser profile. */
export class Owner {
  /** A profile nobody has signed in with. `options` as for a context of playwright. */
  static async open(browser, server, email, options = {}) {
    const owner = new Owner();
    Object.assign(owner, { server, email, problems: [] });
    owner.context = await browser.newContext({ baseURL: server.base, viewport: { width: 1280, height: 800 }, locale: 'en-GB', timezoneId: 'Europe/Berlin', ...options });
    owner.context.setDefaultTimeout(DEADLINE_MS);
    await owner.context.exposeBinding('reportViolation', (_, text) => void owner.problems.push(`policy: ${text}`));
    await owner.context.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => window.reportViolation(`${event.violatedDirective} ${event.blockedURI}`));
    });
    owner.page = await owner.tab();
    return owner;
  }

  /** One more tab. */
  async tab() {
    const page = await this.context.newPage();
    page.on('pageerror', (error) => this.problems.push(`script: ${error.stack}`));
    page.on('dialog', (dialog) => {
      this.problems.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on('console', (message) => {
      if (/Content Security Policy|Trusted/i.test(message.text())) this.problems.push(`policy: ${message.text()}`);
    });
    return page;
  }

  /** Asks for a code and answers it, once the mail is there. */
  async requestCode(page = this.page) {
    const before = new Set(await this.mails());
    await page.fill('#email', this.email);
    await page.click('text=Continue with email');
    await page.waitForSelector('#code');
    const name = await until('a mail with a code', async () => (await this.mails()).find((one) => !before.has(one)));
    const text = await readFile(join(this.server.data, 'outbox', name), 'utf8');
    return /^\s*(\d{6})\s*$/m.exec(text)[1];
  }

  async mails() {
    const names = await readdir(join(this.server.data, 'outbox')).catch(() => []);
    return names.filter((name) => name.endsWith('.eml') && name.includes(this.email));
  }

  /** Signs in from the sign-in page. */
  async signIn(page = this.page) {
    await page.goto('/login');
    const code = await this.requestCode(page);
    await page.fill('#code', code);
    await page.waitForSelector('.sidebar');
    return this;
  }

  /** Claims through the dialog; ends on the agent's chats. */
  async claim(agent) {
    await this.page.click('button[aria-label="Claim an agent"] >> visible=true');
    await this.page.fill('#claim-key', agent.key);
    await this.page.click('dialog button[type=submit]');
    await this.page.waitForURL(`**/agents/${agent.handle}`);
    return this;
  }

  /** Opens a page of this site and waits until the live feed stands. */
  async visit(path) {
    await this.page.goto(path);
    await this.live();
  }

  /** Waits until the live feed stands. */
  async live(page = this.page) {
    await page.waitForSelector('.live >> text=Live', { state: 'attached' });
  }

  /** The texts of all messages on the page, top to bottom. */
  texts(page = this.page) {
    return page.locator('.messages .text').allTextContents();
  }

  /** Waits until the thread ends with `text`. */
  async seesLast(text) {
    await until(`the thread ends with ${text}`, async () => (await this.texts()).at(-1) === text, DEADLINE_MS);
  }

  /** What axe finds that is serious; `where` is for the message. */
  async assertAccessible(where, page = this.page) {
    // Colours are judged once transitions and entrances have ended.
    await page.evaluate(() => Promise.all(document.getAnimations().filter((one) => one.effect.getTiming().iterations !== Infinity).map((one) => one.finished.catch(() => undefined))));
    await page.evaluate(`${AXE}; undefined`);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    const serious = found.violations.filter((one) => one.impact === 'serious' || one.impact === 'critical');
    const said = serious.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join('\n    ')}`);
    assert.deepEqual(said, [], where);
  }

  /** Nothing went wrong in any tab, and the profile is closed. */
  async close() {
    await this.context.close();
    assert.deepEqual(this.problems, []);
  }
}
