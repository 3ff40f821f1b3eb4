// Contacts and blocks: two lists of the same shape.

import { explain, get, of } from './api.js';
import { avatar } from './avatar.js';
import { fill, foreign, h, roving } from './dom.js';
import { count, time } from './format.js';
import { busy, emptiness, failure, skeleton, toast } from './overlay.js';
import { profileCard } from './profile.js';
import { on, title } from './state.js';

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
  let shown = 0;
  const load = async (offset) => {
    if (offset === 0 && shown === 0) fill(note, skeleton(5));
    const answer = await get(`${of(handle, kind)}?limit=100&offset=${offset}`, signal);
    const rows = answer[kind];
    if (offset === 0) fill(list);
    list.append(...rows.map((one) => person(handle, words, one)));
    shown = offset + rows.length;
    total.textContent = answer.total > 0 ? answer.total.toLocaleString() : '';
    fill(note, answer.total === 0 && emptiness(words.drawing, ...words.none));
    settle();
    fill(more, shown < answer.total && rows.length > 0 && next(() => load(shown), answer.total - shown));
  };
  const fresh = () =>
    load(0).catch((error) => {
      if (!signal.aborted) fill(note, failure(error, fresh));
    });
  on('resync', () => shown <= 100 && fresh(), signal);
  on('activity', (event) => event.handle === handle && shown <= 100 && fresh(), signal);
  fresh();
}

function next(run, left) {
  const button = h('button', { class: 'button', type: 'button' }, `Show more (${count(left, 'left', 'left')})`);
  button.addEventListener('click', () => busy(button, run).catch((error) => toast(explain(error), 'error')));
  return button;
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
