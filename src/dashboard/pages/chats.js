// The list of conversations: search, tabs, newest first. It counts nothing unread: what the agent has read is its own
// business.

import { get, of } from './api.js';
import { avatar } from './avatar.js';
import { preview } from './content.js';
import { fill, foreign, h, keyed, reconcile, roving, soon } from './dom.js';
import { time } from './format.js';
import { icon } from './icons.js';
import { emptiness, failure, skeleton } from './overlay.js';
import { paths } from './router.js';
import { on, title } from './state.js';

/** Several events in a row lead to one request. */
const REFETCH_MS = 400;
/** Most of a text that a row needs. */
const PREVIEW_MAX = 160;

/** What a conversation is called. */
export const nameOf = (one) => (one.type === 'group' ? one.group_name?.trim() || 'Group' : title(one.participants[0]));

/** The list of one agent's conversations, in `root` until `signal` ends. `onChange` is called when rows changed. */
export class Chats {
  constructor(root, handle, signal, onChange) {
    Object.assign(this, { root, handle, signal, onChange });
    this.rows = null;
    this.tab = 'all';
    this.needle = '';
    this.active = null;
    this.nodes = keyed((row) => this.make(row));
    this.build();
    this.refetch = soon(() => !signal.aborted && this.load(), REFETCH_MS);
    on('message', (event) => event.handle === handle && this.arrived(event), signal);
    on('resync', () => this.load(), signal);
    this.load();
  }

  build() {
    this.total = h('span', { class: 'count' });
    const search = h('input', { type: 'search', class: 'search', placeholder: 'Search', 'aria-label': 'Search chats', autocomplete: 'off', spellcheck: 'false' });
    search.addEventListener('input', () => {
      this.needle = search.value.trim().toLocaleLowerCase();
      this.paint();
    });
    search.addEventListener('keydown', (event) => {
      if (event.key === 'ArrowDown') this.list.querySelector('a')?.focus();
      else return;
      event.preventDefault();
    });
    this.groupCount = h('span', { class: 'count' });
    this.tabs = [
      h('button', { type: 'button', role: 'tab', id: 'tab-all', 'aria-controls': 'chat-list', data: { tab: 'all' } }, 'All'),
      h('button', { type: 'button', role: 'tab', id: 'tab-groups', 'aria-controls': 'chat-list', data: { tab: 'groups' } }, 'Groups', this.groupCount),
    ];
    for (const tab of this.tabs) tab.addEventListener('click', () => this.choose(tab.dataset.tab));
    const strip = h('div', { class: 'tabs', role: 'tablist', 'aria-label': 'Kind of chats' }, this.tabs);
    strip.addEventListener('keydown', (event) => {
      if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
      this.choose(this.tab === 'all' ? 'groups' : 'all');
      this.tabs.find((tab) => tab.dataset.tab === this.tab).focus();
    });
    this.list = h('ul', { class: 'chat-list' });
    this.settle = roving(this.list, 'a.chat');
    this.note = h('div', {});
    const panel = h('div', { class: 'chat-scroll', id: 'chat-list', role: 'tabpanel' }, this.note, this.list);
    this.panel = panel;
    fill(
      this.root,
      h('header', { class: 'chats-head' }, h('h2', {}, 'Chats'), this.total),
      h('div', { class: 'search-field' }, icon('search', 18), search),
      strip,
      panel,
    );
    this.choose('all');
  }

  choose(tab) {
    this.tab = tab;
    for (const one of this.tabs) {
      const chosen = one.dataset.tab === tab;
      one.setAttribute('aria-selected', String(chosen));
      one.tabIndex = chosen ? 0 : -1;
    }
    this.panel.setAttribute('aria-labelledby', `tab-${tab}`);
    this.paint();
  }

  async load() {
    if (!this.rows) fill(this.note, skeleton(7));
    try {
      this.rows = (await get(of(this.handle, 'conversations'), this.signal)).conversations;
      this.paint();
      this.onChange?.();
    } catch (error) {
      if (!this.signal.aborted && !this.rows) fill(this.note, failure(error, () => this.load()));
    }
  }

  /** The conversation with this id, if the list knows it. */
  find(id) {
    return this.rows?.find((row) => row.id === id);
  }

  /** A message came: its conversation moves to the top. What is not known yet is asked for. */
  arrived({ conversation, row }) {
    const known = this.find(conversation);
    if (!known || row.type === 'system') this.refetch();
    if (!known) return;
    const changed = {
      ...known,
      last_message_at: row.created_at,
      last_message_preview: preview(row).slice(0, PREVIEW_MAX),
      last_message_is_own: row.is_own,
      last_message_type: row.type,
      updated_at: row.created_at,
    };
    this.rows = [changed, ...this.rows.filter((one) => one !== known)];
    this.paint();
  }

  /** Marks the conversation that is open. */
  activate(id) {
    this.active = id;
    this.paint();
    this.list.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' });
  }

  /** Puts the focus on a conversation. */
  focus(id) {
    this.links().find((link) => link.dataset.id === id)?.focus();
  }

  shows(row) {
    if (this.tab === 'groups' && row.type !== 'group') return false;
    if (this.needle === '') return true;
    const texts = [nameOf(row), ...row.participants.map((one) => one.handle), row.last_message_preview ?? ''];
    return texts.some((text) => text.toLocaleLowerCase().includes(this.needle));
  }

  paint() {
    if (!this.rows) return;
    this.total.textContent = this.rows.length > 0 ? String(this.rows.length) : '';
    const groups = this.rows.filter((row) => row.type === 'group').length;
    this.groupCount.textContent = groups > 0 ? String(groups) : '';
    const shown = this.rows.filter((row) => this.shows(row));
    reconcile(this.list, this.nodes(shown.map((row) => [row.id, row])));
    for (const link of this.links()) {
      if (link.dataset.id === this.active) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    this.settle();
    if (shown.length > 0) fill(this.note);
    else if (this.rows.length === 0) fill(this.note, emptiness('chat', 'No chats yet', 'When this agent sends or receives its first message, the chat appears here.'));
    else if (this.needle !== '') fill(this.note, emptiness('search', 'Nothing found', 'No chat matches this search.'));
    else fill(this.note, emptiness('group', 'No groups', 'This agent is in no group.'));
  }

  links() {
    return [...this.list.children].map((item) => item.firstChild);
  }

  make(row) {
    const group = row.type === 'group';
    const face = group ? avatar({ id: row.id, name: row.group_name, avatar_url: row.group_avatar_url }, { group: true }) : avatar(row.participants[0] ?? { handle: '?' });
    const text = row.last_message_preview?.slice(0, PREVIEW_MAX) || { file: 'File', structured: 'Structured message', system: 'Group event' }[row.last_message_type] || 'No messages';
    return h(
      'li',
      {},
      h(
        'a',
        { class: 'chat', href: paths.conversation(this.handle, row.id), 'data-page': true, data: { id: row.id } },
        face,
        h(
          'span',
          { class: 'chat-text' },
          h('span', { class: 'chat-line' }, foreign(nameOf(row), { class: 'chat-name' }), row.last_message_at && time(row.last_message_at, 'list', { class: 'chat-time' })),
          h('span', { class: 'chat-preview' }, row.last_message_is_own && h('span', { class: 'you' }, 'You: '), foreign(text)),
        ),
      ),
    );
  }
}
