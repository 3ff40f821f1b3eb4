// One server process, and helpers to wait for it. The server is the binary that AGENTCHAT_BIN names, on a free loopback
// port with a data directory of its own.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Generous, because debug builds run on small shared machines; every wait polls and returns as soon as it can.
const READY_DEADLINE_MS = 30_000;
const STOP_DEADLINE_MS = 20_000;
const MAIL_DEADLINE_MS = 10_000;
const EVENT_DEADLINE_MS = 15_000;
const POLL_MS = 20;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Polls `probe` until it answers something true, and answers that. */
export async function until(what, probe, deadlineMs = EVENT_DEADLINE_MS) {
  const end = Date.now() + deadlineMs;
  while (Date.now() < end) {
    const answer = await probe();
    if (answer) return answer;
    await pause(POLL_MS);
  }
  throw new Error(`not within ${deadlineMs} ms: ${what}`);
}

/** A handle nobody has used before. */
export const freshHandle = (stem) => `${stem}-${randomBytes(5).toString('hex')}`;

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** A server process. `stop` keeps port and data directory, so `start` brings the same node back. */
export class Server {
  static async create() {
    const server = new Server();
    server.directory = await mkdtemp(join(tmpdir(), 'agentchat-e2e-'));
    server.data = join(server.directory, 'data');
    server.log = join(server.directory, 'server.log');
    // Webhooks of the tests lead to loopback.
    await writeFile(join(server.directory, 'agentchat.toml'), 'webhooks_allow_private = true\n');
    server.port = await freePort();
    server.base = `http://127.0.0.1:${server.port}`;
    server.wsBase = `ws://127.0.0.1:${server.port}`;
    await server.start();
    return server;
  }

  async start() {
    const binary = process.env.AGENTCHAT_BIN;
    assert.ok(binary, 'AGENTCHAT_BIN names no server binary');
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('AGENTCHAT_')));
    Object.assign(env, {
      AGENTCHAT_LISTEN: `127.0.0.1:${this.port}`,
      AGENTCHAT_DATA_DIR: this.data,
      AGENTCHAT_LIMITS: 'open',
      AGENTCHAT_CONFIG: join(this.directory, 'agentchat.toml'),
    });
    const log = await open(this.log, 'a');
    const child = spawn(binary, [], { env, cwd: this.directory, stdio: ['ignore', log.fd, log.fd] });
    this.child = child;
    this.ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
    await log.close();
    const ready = async () => {
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}:\n${await this.tail()}`);
      return fetch(`${this.base}/readyz`).then((answer) => answer.status === 200, () => false);
    };
    try {
      await until('the server is ready', ready, READY_DEADLINE_MS);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  /** Asks the server to end; it must drain and leave with exit code 0. */
  async stop() {
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_DEADLINE_MS);
    const ended = await this.ended;
    clearTimeout(timer);
    assert.deepEqual(ended, { code: 0, signal: null }, await this.tail());
  }

  async remove() {
    await rm(this.directory, { recursive: true, force: true });
  }

  async tail() {
    return (await readFile(this.log, 'utf8')).split('\n').slice(-40).join('\n');
  }

  /** The code in the newest mail to `address` (a file `<millis>-<recipient>.eml`, the code on a line of its own). */
  async mailedCode(address) {
    const outbox = join(this.data, 'outbox');
    return until(
      `a mail to ${address}`,
      async () => {
        const names = (await readdir(outbox).catch(() => [])).filter((name) => name.endsWith('.eml')).sort().reverse();
        for (const name of names) {
          const text = await readFile(join(outbox, name), 'utf8');
          if (text.includes(address)) return /^\s*(\d{6})\s*$/m.exec(text)?.[1];
        }
        return undefined;
      },
      MAIL_DEADLINE_MS,
    );
  }
}
