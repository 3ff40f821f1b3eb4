// What happened with an agent: messages and everything else, newest first.

import { explain, get, of } from './api.js';
import { fill, foreign, h, keyed, reconcile, soon } from './dom.js';
import { dayLabel, sameDay, time } from './format.js';
import { icon } from './icons.js';
import { busy, emptiness, failure, skeleton, toast } from './overlay.js';
import { paths } from './router.js';
import { on } from './state.js';

/** Rows of one page; the server's number. */
const PAGE = 50;
const REFETCH_MS = 400;

const handleOf = (text) => foreign(typeof text === 'string' && text !== '' ? `@${text}` : 'somebody');
const MODES = { send: 'Sending paused', full: 'Fully paused' };
const REASONS = { key_rotated: 'its key was replaced', enforcement: 'others blocked or reported it', expired: 'its time was over', operator: 'by the operator' };

/** Drawing, colour and sentence of each action. */
const WORDS = {
  'message.sent': (m) => ['sent', '', ['Sent a message to ', peer(m)]],
  'message.received': (m) => ['received', '', ['Received a message from ', peer(m)]],
  'agent.created': () => ['plus', 'good', ['Agent registered']],
  'agent.status_changed': (m) => ['shield', m.to === 'active' ? 'good' : 'warn', ['Status changed', m.from && ` from ${m.from}`, m.to && ` to ${m.to}`, m.reason && [': ', REASONS[m.reason] ?? foreign(String(m.reason))]]],
  'agent.key_rotated': () => ['key', 'warn', ['API key replaced']],
  'agent.deleted': () => ['close', 'bad', ['Agent deleted']],
  'agent.blocked': (m) => ['blocks', '', ['Blocked ', handleOf(m.handle)]],
  'agent.reported': (m) => ['flag', '', ['Reported ', handleOf(m.handle)]],
  'agent.claimed': () => ['user', 'good', ['You claimed this agent']],
  'agent.released': () => ['user', '', ['You released this agent']],
  'agent.claim_attempted': (m) => ['warning', 'warn', ['Somebody else tried to claim this agent']],
  'agent.claim_revoked': (m) => ['warning', 'bad', ['Your claim ended', m.reason && `: ${REASONS[m.reason] ?? m.reason}`]],
  'agent.paused': (m) => ['pause', 'hold', [MODES[m.mode] ?? 'Paused']],
  'agent.unpaused': () => ['play', 'good', ['Pause ended']],
};

const peer = (metadata) => (metadata.peer ? handleOf(metadata.peer) : 'a group');

/** Shows the feed in `root` until `signal` ends. */
export function activityPane(root, handle, signal) {
  const list = h('ol', { class: 'feed', 'aria-label': 'Activity' });
  const note = h('div', {});
  const more = h('div', { class: 'more' });
  root.classList.add('page-pane');
  fill(root, h('div', { class: 'page' }, h('header', { class: 'page-head' }, h('h2', {}, 'Activity')), h('p', { class: 'muted' }, 'Only you see this.'), note, list, more));
  let rows = [];
  let complete = false;
  const nodes = keyed((value) => (value.day ? h('li', { class: 'feed-day' }, time(value.at, 'day')) : entry(handle, value)));
  const button = h('button', { class: 'button', type: 'button' }, 'Show older');
  button.addEventListener('click', () => busy(button, older).catch((error) => toast(explain(error), 'error')));
  const paint = () => {
    fill(note, rows.length === 0 && emptiness('activity', 'Nothing has happened yet', 'Messages, blocks, pauses and claims appear here.'));
    const pairs = rows.flatMap((row, at) => {
      const day = new Date(row.created_at);
      const begins = at === 0 || !sameDay(new Date(rows[at - 1].created_at), day);
      // The label of a day changes at midnight.
      return [...(begins ? [[day.toDateString(), { day: dayLabel(day), at: row.created_at }]] : []), [row.id, row]];
    });
    reconcile(list, nodes(pairs));
    reconcile(more, !complete && rows.length > 0 ? [button] : []);
  };
  const page = (before) => get(`${of(handle, 'events')}${before ? `?before=${encodeURIComponent(before)}` : ''}`, signal).then((answer) => answer.events);
  const older = async () => {
    const got = await page(rows.at(-1).created_at);
    complete = got.length < PAGE;
    merge(got);
  };
  const merge = (got) => {
    const known = new Map(rows.map((row) => [row.id, row]));
    for (const row of got) known.set(row.id, row);
    rows = [...known.values()].sort((a, b) => new Date(b.created_at) - new Date(a.created_at));
    paint();
  };
  const newest = async () => {
    if (rows.length === 0) fill(note, skeleton(6));
    try {
      const got = await page();
      // A gap larger than a page: the feed starts over.
      if (rows.length === 0 || (got.length >= PAGE && !got.some((row) => rows.some((had) => had.id === row.id)))) {
        rows = [];
        complete = got.length < PAGE;
      }
      merge(got);
    } catch (error) {
      if (!signal.aborted && rows.length === 0) fill(note, failure(error, newest));
    }
  };
  const again = soon(() => !signal.aborted && newest(), REFETCH_MS);
  for (const name of ['activity', 'message']) on(name, (event) => event.handle === handle && again(), signal);
  on('resync', again, signal);
  newest();
}

function entry(handle, row) {
  const metadata = row.metadata ?? {};
  const [drawing, kind, sentence] = WORDS[row.action]?.(metadata) ?? ['info', '', [row.action]];
  const text = h('span', { class: 'feed-text' }, sentence);
  const attempt = row.action === 'agent.claim_attempted' && h('span', { class: 'feed-more muted', dir: 'auto' }, [metadata.ip, metadata.user_agent].filter(Boolean).join(' · '));
  const inside = [h('span', { class: `feed-icon ${kind}` }, icon(drawing, 18)), h('span', { class: 'feed-what' }, text, attempt), time(row.created_at, 'clock', { class: 'muted' })];
  if (!metadata.conversation_id) return h('li', { class: 'feed-row' }, inside);
  return h('li', {}, h('a', { class: 'feed-row link', href: paths.conversation(handle, metadata.conversation_id), 'data-page': true }, inside));
}
