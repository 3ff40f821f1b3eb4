// From the rows of a conversation to what stands in the thread: dividers between days, messages in clusters.
// Elements are made once and kept by id, so that growing the window at either end leaves the others alone.

import { avatar } from './avatar.js';
import { bodyOf, eventOf, json } from './content.js';
import { foreign, h, spoken } from './dom.js';
import { clock, sameDay, time } from './format.js';
import { icon } from './icons.js';
import { dialog } from './overlay.js';
import { profileCard } from './profile.js';
import { title } from './state.js';

/** Messages of one sender this close together stand together. */
const CLUSTER_MS = 5 * 60_000;

/** Whether `row` continues the cluster of `before`. */
export function continues(before, row) {
  if (!before || before.type === 'system' || row.type === 'system') return false;
  if (before.is_own !== row.is_own || before.sender_handle !== row.sender_handle) return false;
  const [earlier, later] = [new Date(before.created_at), new Date(row.created_at)];
  return later - earlier <= CLUSTER_MS && sameDay(earlier, later);
}

/** Makes and keeps the elements of one thread. */
export class Timeline {
  constructor(handle, group) {
    this.handle = handle;
    this.group = group;
    this.made = new Map();
    this.days = new Map();
  }

  /** The elements for `rows[from..to]`, dividers included. */
  elements(rows, from, to) {
    const wanted = [];
    for (let at = from; at < to; at += 1) {
      const row = rows[at];
      const before = at > 0 ? rows[at - 1] : null;
      const date = new Date(row.created_at);
      if (at === from || !before || !sameDay(new Date(before.created_at), date)) wanted.push(this.day(row, at === from));
      wanted.push(this.message(row, at === from || !continues(before, row), !rows[at + 1] || !continues(row, rows[at + 1])));
    }
    return wanted;
  }

  /** Forgets elements that have not been shown for long enough to matter. */
  forget(rows, from, to) {
    const keep = new Set(rows.slice(from, to).map((row) => row.id));
    for (const id of this.made.keys()) if (!keep.has(id)) this.made.delete(id);
    this.days.clear();
  }

  day(row, top) {
    const key = `${new Date(row.created_at).toDateString()}${top ? ' top' : ''}`;
    if (!this.days.has(key)) this.days.set(key, h('li', { class: 'day' }, time(row.created_at, 'day')));
    return this.days.get(key);
  }

  message(row, first, last) {
    let entry = this.made.get(row.id);
    if (!entry) {
      entry = { row };
      entry.node = make(row, this.handle, this.group, () => inspect(entry.row));
      this.made.set(row.id, entry);
    } else if (entry.row !== row) {
      // Messages never change; how far they came does.
      entry.row = row;
      entry.node.querySelector('.ticks')?.replaceWith(state(row));
    }
    entry.node.classList.toggle('first', first);
    entry.node.classList.toggle('last', last);
    return entry.node;
  }
}

function make(row, handle, group, open) {
  const event = eventOf(row);
  if (event) {
    const moment = time(row.created_at, 'clock', { class: 'muted' });
    return h('li', { class: 'event', data: { id: row.id } }, h('span', {}, event, ' · ', moment));
  }
  const who = { handle: row.sender_handle, display_name: row.sender_display_name, avatar_url: row.sender_avatar_url };
  const side = row.is_own ? 'own' : 'other';
  const shown = group && !row.is_own;
  const face = () => h('button', { class: 'face', type: 'button', tabindex: '-1', 'aria-hidden': 'true', on: { click: () => profileCard(handle, who.handle) } }, avatar(who, { size: 's' }));
  const details = h('button', { class: 'icon-button small details', type: 'button', 'aria-label': `Details of the message of ${clock(new Date(row.created_at))}`, title: 'Details' }, icon('more', 16));
  details.addEventListener('click', open);
  const name = h('button', { class: 'cluster-name', type: 'button', on: { click: () => profileCard(handle, who.handle) } }, foreign(title(who)));
  return h(
    'li',
    { class: `message ${side}${group ? ' grouped' : ''}`, data: { id: row.id, seq: row.seq } },
    shown && h('div', { class: 'face-slot' }, face()),
    h(
      'div',
      { class: 'stack' },
      shown && name,
      h('div', { class: 'line' }, h('div', { class: 'bubble' }, spoken(`${row.is_own ? 'Sent' : `From ${title(who)}`}: `), bodyOf(row, handle)), details),
      h('div', { class: 'meta' }, time(row.created_at, 'clock'), row.is_own && state(row)),
    ),
  );
}

const STATES = { stored: ['check', 'Stored'], delivered: ['checks', 'Delivered'], read: ['checks', 'Read'] };

function state(row) {
  const [drawing, words] = STATES[row.status] ?? STATES.stored;
  return h('span', { class: `ticks ${row.status}`, title: words }, icon(drawing, 16), spoken(words));
}

const KINDS = { text: 'Text', structured: 'Structured', file: 'File', system: 'Group event' };

/** Everything the server says about one message. */
function inspect(row) {
  const fact = (label, value) => value !== null && value !== undefined && value !== '' && [h('dt', {}, label), h('dd', {}, value)];
  const moment = (iso) => iso && time(iso, 'full');
  const facts = h(
    'dl',
    { class: 'facts' },
    fact('Sender', foreign(`@${row.sender_handle}`)),
    fact('Kind', KINDS[row.type] ?? row.type),
    fact('Place', `${row.seq.toLocaleString()} in this chat`),
    fact('Stored', moment(row.created_at)),
    fact('Delivered', moment(row.delivered_at)),
    fact('Read', moment(row.read_at)),
    fact('Message ID', h('code', {}, row.id)),
    fact('Sender’s ID', row.client_msg_id && h('code', { dir: 'auto' }, row.client_msg_id)),
  );
  const noted = row.metadata && Object.keys(row.metadata).length > 0;
  dialog({ title: 'Message details', body: [facts, json(row.content ?? {}, 'Content'), noted && json(row.metadata, 'Metadata')], kind: 'wide' });
}
