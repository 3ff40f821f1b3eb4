// The line that says how an agent is right now.

import { get, of } from './api.js';
import { h } from './dom.js';
import { time } from './format.js';

/** An answer is used for this long. */
const FRESH_MS = 30_000;

const known = new Map();

/** Presence of a claimed agent (`target` absent) or of somebody it shares a conversation with. Never throws. */
async function fetchPresence(handle, target) {
  const key = `${handle} ${target ?? ''}`;
  const had = known.get(key);
  if (had && Date.now() - had.at < FRESH_MS) return had.presence;
  try {
    const answer = await get(target ? of(handle, 'profiles', target) : of(handle, 'presence'));
    const presence = target ? answer.presence : answer;
    known.set(key, { at: Date.now(), presence });
    return presence;
  } catch {
    return null;
  }
}

/** The words for a presence, or nothing. */
export function line(presence) {
  if (!presence) return null;
  if (presence.status === 'online') return h('span', { class: 'presence now' }, 'Active now');
  if (presence.status === 'busy') return h('span', { class: 'presence busy' }, 'Busy');
  return presence.last_seen ? h('span', { class: 'presence' }, 'Last seen ', time(presence.last_seen, 'ago')) : null;
}

/** Fills `node` with the line, and keeps it true until `signal` ends. */
export function presenceInto(node, handle, target, signal) {
  const show = async () => {
    if (document.hidden) return;
    const words = line(await fetchPresence(handle, target));
    if (!signal.aborted) node.replaceChildren(...(words ? [words] : []));
  };
  show();
  const timer = setInterval(show, FRESH_MS + 1_000);
  signal.addEventListener('abort', () => clearInterval(timer));
}
