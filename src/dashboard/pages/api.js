// Requests to `/dashboard/*`, and the session behind them.
//
// A1  The access token is renewed before it ends, by one tab at a time; a request that was refused for it is repeated once.
// A2  Only a refusal (401, 403) of the renewal ends the session. A lost network or a failing server does not.

import { emit, recall, remember } from './state.js';

/** The access token lives an hour; it is renewed when less than a quarter of that is left. */
const RENEW_AFTER_MS = 45 * 60_000;
/** Keeps tabs alive that ask for nothing. */
const KEEP_ALIVE_MS = 40 * 60_000;
/** What one tab remembers, others know after this at the latest. */
const SETTLE_MS = 200;
/** No answer comes later than this. */
const DEADLINE_MS = 20_000;

const channel = 'BroadcastChannel' in window ? new BroadcastChannel('agentchat') : null;
let renewal = null;

/** A refusal, or no answer at all (`status` 0). */
export class ApiError extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

async function send(method, path, body, signal) {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      cache: 'no-store',
      credentials: 'same-origin',
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, 'OFFLINE', 'The server cannot be reached.');
  }
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  const wait = Number(response.headers.get('retry-after')) || null;
  throw new ApiError(response.status, answer?.code ?? 'UNKNOWN', answer?.message ?? 'Something went wrong.', wait);
}

/** One request that needs no session. */
export const plain = (method, path, body) => send(method, path, body);

/** One request as the owner. Throws [`ApiError`], and `AbortError` when `signal` ended it. */
export async function api(method, path, { body, signal } = {}) {
  const seen = renewedAt();
  if (seen > 0 && Date.now() - seen > RENEW_AFTER_MS) await renew(seen).catch(() => undefined);
  try {
    return await send(method, path, body, signal);
  } catch (error) {
    if (error.status !== 401) throw error;
  }
  await renew(seen);
  try {
    return await send(method, path, body, signal);
  } catch (error) {
    if (error.status === 401) ended();
    throw error;
  }
}

/** `GET` as the owner. */
export const get = (path, signal) => api('GET', path, { signal });
/** `POST` as the owner. */
export const post = (path, body) => api('POST', path, { body: body ?? {} });

/** The path of something of one agent. */
export const of = (handle, ...rest) =>
  ['/dashboard/agents', handle, ...rest].map((part, at) => (at === 0 ? part : encodeURIComponent(part))).join('/');

const renewedAt = () => Number(recall('renewed')) || 0;

/** Renews the access token, unless another tab has done so since `seen`. */
function renew(seen) {
  renewal ??= alone(async () => {
    if (renewedAt() > seen) return;
    try {
      await send('POST', '/dashboard/auth/refresh', {});
      remember('renewed', Date.now());
    } catch (error) {
      if (error.status === 401 || error.status === 403) ended();
      throw error;
    }
  }).finally(() => {
    renewal = null;
  });
  return renewal;
}

/**
 * One tab at a time. Without locks (plain HTTP on a network) the server's tolerance for twins has to do. The lock is held
 * a moment longer than the work: the next tab may be another process, to which what was remembered has to come first.
 */
function alone(run) {
  if (!navigator.locks) return run();
  return new Promise((resolve, reject) => {
    const locked = navigator.locks.request('agentchat.renew', async () => {
      await run().then(resolve, reject);
      await new Promise((settled) => setTimeout(settled, SETTLE_MS));
    });
    locked.catch(reject);
  });
}

/** Whether this browser was signed in when it last looked. */
export const wasSignedIn = () => renewedAt() > 0;

/** The session begins: cookies have just been set. */
export function begun() {
  remember('renewed', Date.now());
  channel?.postMessage('signed-in');
}

/** The session is over, in all tabs; `chosen` if the owner said so here. */
export function ended({ tell = true, chosen = false } = {}) {
  remember('renewed', null);
  if (tell) channel?.postMessage('signed-out');
  emit('signed-out', { chosen });
}

/** Ends this browser's session. Only the server can: without its answer the cookies are still good. */
export async function signOut() {
  try {
    await plain('POST', '/dashboard/auth/logout', {});
  } catch {
    emit('still-signed-in');
    return;
  }
  ended({ chosen: true });
}

channel?.addEventListener('message', (event) => {
  if (event.data === 'signed-out') ended({ tell: false });
  // Another tab that still asks for an address need not.
  if (event.data === 'signed-in' && location.pathname === '/login') emit('signed-in');
});

setInterval(() => {
  const seen = renewedAt();
  if (seen > 0 && Date.now() - seen >= KEEP_ALIVE_MS) renew(seen).catch(() => undefined);
}, 60_000);

/** What to tell a person about a failure. */
export function explain(error) {
  if (!(error instanceof ApiError)) return 'Something went wrong.';
  if (error.status === 0) return 'The server cannot be reached. Check your connection.';
  if (error.status === 429) return `Too many attempts. Try again ${waiting(error.retryAfter)}.`;
  if (error.status >= 500) return 'The server has a problem right now. Try again in a moment.';
  const text = error.message;
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;
}

function waiting(seconds) {
  if (!seconds) return 'later';
  if (seconds < 90) return `in ${seconds} seconds`;
  return `in ${Math.ceil(seconds / 60)} minutes`;
}
