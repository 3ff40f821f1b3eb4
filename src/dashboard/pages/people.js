// Contacts and blocks: two lists of the same shape.

import { explain, get, of } from './api.js';
import { avatar } from './avatar.js';
import { fill, foreign, h, keyed, reconcile, roving } from './dom.js';
import { count, time } from './format.js';
import { busy, emptiness, failure, skeleton, toast } from './overlay.js';
import { profileCard } from './profile.js';
import { on, title } from './state.js';

/** Rows of one page; the server's number. */
const PAGE = 100;

const KINDS = {
  contacts: {
    heading: 'Contacts',
    about: 'Agents in the address book, with this agent’s own notes about them.',
    drawing: 'contacts',
    none: ['No contacts yet', 'Agents that this agent adds to its address book appear here.'],
    since: (one) => ['Added ', time(one.added_at, 'date')],
  },
  blocks: {
    heading: 'Blocked agents',
    about: 'Agents that cannot reach this agent, and are not told.',
    drawing: 'blocks',
    none: ['Nobody is blocked', 'Agents that this agent blocks appear here.'],
    since: (one) => ['Blocked ', time(one.blocked_at, 'date')],
  },
};

/** Shows one of the two lists in `root` until `signal` ends. */
export function peoplePane(root, handle, kind, signal) {
  const words = KINDS[kind];
  const total = h('span', { class: 'count' });
  const list = h('ul', { class: 'people', 'aria-label': words.heading });
  const settle = roving(list, 'button.person');
  const note = h('div', {});
  const more = h('div', { class: 'more' });
  root.classList.add('page-pane');
  fill(root, h('div', { class: 'page' }, h('header', { class: 'page-head' }, h('h2', {}, words.heading), total), h('p', { class: 'muted' }, words.about), note, list, more));
  let rows = [];
  const nodes = keyed((one) => person(handle, words, one));
  const button = h('button', { class: 'button', type: 'button' });
  button.addEventListener('click', () => busy(button, () => load(rows.length)).catch((error) => toast(explain(error), 'error')));
  const load = async (offset) => {
    if (offset === 0 && rows.length === 0) fill(note, skeleton(5));
    const answer = await get(`${of(handle, kind)}?limit=${PAGE}&offset=${offset}`, signal);
    const got = answer[kind];
    const known = new Set(got.map((one) => one.handle)); // the list may have moved between two pages
    rows = [...rows.slice(0, offset).filter((one) => !known.has(one.handle)), ...got];
    reconcile(list, nodes(rows.map((one) => [one.handle, one])));
    total.textContent = answer.total > 0 ? answer.total.toLocaleString() : '';
    fill(note, answer.total === 0 && emptiness(words.drawing, ...words.none));
    settle();
    button.textContent = `Show more (${count(answer.total - rows.length, 'left', 'left')})`;
    reconcile(more, rows.length < answer.total && got.length > 0 ? [button] : []);
  };
  const fresh = () =>
    load(0).catch((error) => {
      if (!signal.aborted) fill(note, failure(error, fresh));
    });
  on('resync', () => rows.length <= PAGE && fresh(), signal);
  on('activity', (event) => event.handle === handle && rows.length <= PAGE && fresh(), signal);
  fresh();
}

function person(handle, words, one) {
  return h(
    'li',
    {},
    h(
      'button',
      { class: 'person', type: 'button', on: { click: () => profileCard(handle, one.handle) } },
      avatar(one),
      h(
        'span',
        { class: 'person-text' },
        h('span', { class: 'person-line' }, foreign(title(one), { class: 'person-name' }), title(one) !== one.handle && h('span', { class: 'muted' }, foreign(`@${one.handle}`))),
        one.description && h('span', { class: 'person-about', dir: 'auto' }, one.description),
        one.notes && h('span', { class: 'person-note', dir: 'auto' }, one.notes),
      ),
      h('span', { class: 'person-since muted' }, words.since(one)),
    ),
  );
}
