// One conversation: its newest messages, older ones by scrolling, new ones as they come.
//
// T1  `rows` ascends by `seq` without repeats; what is shown is the window `from..to` of it.
// T2  At most `SHOWN_MAX` messages are elements at a time, however far back somebody scrolls.
// T3  Whatever changes above or below, the message under the reader's eyes stays where it is, unless they are at the end:
//     then the end stays in view.

import { ApiError, get, of } from './api.js';
import { avatar } from './avatar.js';
import { preview } from './content.js';
import { fill, foreign, h, reconcile, soon } from './dom.js';
import { count } from './format.js';
import { groupPanel } from './group.js';
import { icon } from './icons.js';
import { emptiness, failure, skeleton } from './overlay.js';
import { presenceInto } from './presence.js';
import { profileCard } from './profile.js';
import { paths } from './router.js';
import { on, title } from './state.js';
import { Timeline } from './timeline.js';

/** Rows of one page; the server's number. */
const PAGE = 50;
/** Most messages that are elements at a time. */
const SHOWN_MAX = 250;
/** More is fetched, or brought into the window, this close to an edge. */
const NEAR_PX = 600;
/** Whoever is this close to the end follows it. */
const END_PX = 60;
/** How far own messages came is asked again this long after something happened. */
const RECHECK_MS = 1_500;

/** Shows a conversation in `root` until `signal` ends. `about` is its row in the list, if the list knows it. */
export class Thread {
  constructor(root, handle, id, about, signal) {
    Object.assign(this, { root, handle, id, about, signal });
    this.group = about ? about.type === 'group' : id.startsWith('grp_');
    this.timeline = new Timeline(handle, this.group);
    this.rows = [];
    this.from = 0;
    this.to = 0;
    this.older = true;
    this.loadingOlder = false;
    this.build();
    on('message', (event) => event.handle === handle && event.conversation === id && this.arrived(event.row), signal);
    on('resync', () => {
      this.stuck = false; // what failed before the connection came back may be asked for again
      this.refetch();
    }, signal);
    this.recheck = soon(() => !signal.aborted && this.refetch(), RECHECK_MS);
    this.load();
  }

  build() {
    this.list = h('ol', { class: 'messages' });
    this.top = h('div', { class: 'thread-top' });
    this.content = h('div', { class: 'thread-content' }, this.top, this.list);
    this.scroller = h('div', { class: 'thread-scroll', tabindex: '0', role: 'region' }, this.content);
    this.latest = h('button', { class: 'latest', type: 'button', hidden: true, on: { click: () => this.toEnd() } }, icon('chevron', 18), h('span', {}, 'Latest'));
    this.head = h('header', { class: 'thread-head' });
    this.fillHead();
    this.scroller.addEventListener('scroll', () => this.scrolled(), { passive: true });
    // Pictures and folded texts change heights after the fact; whoever follows the end keeps following it.
    const watch = new ResizeObserver(() => this.following && this.toEnd());
    watch.observe(this.content);
    watch.observe(this.scroller);
    this.signal.addEventListener('abort', () => watch.disconnect());
    fill(this.root, this.head, h('div', { class: 'thread-body' }, this.scroller, this.latest));
  }

  /** Who the conversation is with. Filled again when the list learns more. */
  fillHead() {
    this.headEnds?.abort();
    this.headEnds = new AbortController();
    this.signal.addEventListener('abort', () => this.headEnds.abort(), { signal: this.headEnds.signal });
    const about = this.about;
    const back = h('a', { class: 'icon-button back', href: paths.agent(this.handle), 'data-page': true, 'aria-label': 'Back to chats' }, icon('back'));
    const under = h('span', { class: 'thread-under' });
    let face = avatar({ id: this.id, name: '' }, { group: true });
    let name = 'Conversation';
    let open = null;
    if (this.group) {
      face = avatar({ id: this.id, name: about?.group_name, avatar_url: about?.group_avatar_url }, { group: true });
      name = about?.group_name?.trim() || 'Group';
      under.textContent = about?.group_member_count ? count(about.group_member_count, 'member') : '';
      open = () => groupPanel(this.root, this.handle, this.id, this.signal);
    } else if (about?.participants[0]) {
      const peer = about.participants[0];
      face = avatar(peer);
      name = title(peer);
      const presence = h('span', {});
      fill(under, foreign(`@${peer.handle}`), presence);
      presenceInto(presence, this.handle, peer.handle, this.headEnds.signal);
      open = () => profileCard(this.handle, peer.handle);
    }
    this.scroller.setAttribute('aria-label', `Messages: ${name}`);
    const text = h('span', { class: 'thread-who' }, h('h2', {}, foreign(name)), under);
    const label = this.group ? 'Group details' : 'Profile';
    const more = open && h('button', { class: 'icon-button', type: 'button', 'aria-label': label, title: label, on: { click: open } }, icon('info'));
    fill(this.head, back, open ? h('div', { class: 'thread-id', on: { click: open } }, face, text) : h('div', { class: 'thread-id' }, face, text), more);
  }

  /** The list knows this conversation now, or knows it better. */
  learned(about) {
    const key = JSON.stringify([about.group_name, about.group_member_count, about.group_avatar_url, about.participants]);
    if (key === this.learnedKey) return;
    this.learnedKey = key;
    this.about = about;
    this.group = about.type === 'group';
    this.fillHead();
  }

  page(before) {
    const query = new URLSearchParams({ conversation_id: this.id });
    if (before !== undefined) query.set('before_seq', String(before));
    return get(`${of(this.handle, 'messages')}?${query}`, this.signal).then((answer) => answer.messages.reverse());
  }

  async load() {
    fill(this.top, skeleton(7, 'bubbles'));
    try {
      const rows = await this.page();
      this.merge(rows);
      this.older = rows.length >= PAGE;
      fill(this.top);
      this.window(Math.max(0, this.rows.length - PAGE), this.rows.length);
      this.following = true;
      this.paint();
      this.toEnd();
      this.scrolled();
    } catch (error) {
      if (!this.signal.aborted) this.failed(error, () => this.load());
    }
  }

  failed(error, retry) {
    const gone = error instanceof ApiError && (error.status === 404 || error.status === 410);
    if (!gone) return fill(this.top, failure(error, retry));
    reconcile(this.list, []);
    return fill(this.top, emptiness('chat', 'This conversation is not visible', 'The agent hid it, left it, or was never part of it.'));
  }

  /** Newest page again: closes gaps after a reconnect, and shows how far own messages came. */
  async refetch() {
    if (this.refetching) return;
    this.refetching = true;
    try {
      const rows = await this.page();
      const had = this.rows.at(-1)?.seq ?? 0;
      // More was missed than one page: what is in between is fetched by scrolling, like all history.
      if (rows.length >= PAGE && had > 0 && rows[0].seq > had) {
        this.rows = [];
        this.older = true;
        this.following = true;
        this.window(0, 0);
      }
      this.merge(rows);
      this.follow();
    } catch (error) {
      if (error.status === 404 || error.status === 410) this.failed(error);
    } finally {
      this.refetching = false;
    }
  }

  /** Takes rows in (T1). */
  merge(rows) {
    const atEnd = this.to === this.rows.length;
    const known = new Map(this.rows.map((row) => [row.seq, row]));
    const firstShown = this.rows[this.from]?.seq;
    for (const row of rows) known.set(row.seq, row);
    this.rows = [...known.values()].sort((a, b) => a.seq - b.seq);
    const from = firstShown === undefined ? 0 : this.rows.findIndex((row) => row.seq === firstShown);
    this.window(from, atEnd ? this.rows.length : Math.min(this.rows.length, from + (this.to - this.from)));
  }

  window(from, to) {
    this.from = from;
    this.to = to;
  }

  /** A message came. */
  arrived(row) {
    if (this.rows.some((one) => one.seq === row.seq)) return;
    const following = this.following;
    this.merge([row]);
    this.follow();
    if (!following && !row.is_own) this.latest.classList.add('news');
    announce(row);
    this.recheck();
  }

  /** After rows were added at the end: they are shown, and the window stays bounded. */
  follow() {
    if (this.following && this.to === this.rows.length) this.from = Math.max(this.from, this.to - SHOWN_MAX);
    if (this.to - this.from > SHOWN_MAX) this.to = this.from + SHOWN_MAX;
    this.anchored(() => {
      if (!this.loadingOlder && !this.stuck) fill(this.top);
      this.paint();
    });
    if (this.following) this.toEnd();
    this.scrolled();
  }

  paint() {
    reconcile(this.list, this.timeline.elements(this.rows, this.from, this.to));
    if (this.rows.length === 0) fill(this.top, emptiness('chat', 'No messages yet', 'What the agent sends and receives here appears at once.'));
    else if (this.from === 0 && !this.older && !this.loadingOlder) fill(this.top, h('p', { class: 'beginning' }, 'Beginning of what this agent can see'));
    this.scroller.dataset.window = `${this.from}..${this.to}/${this.rows.length}`;
  }

  /** Changes the list so that the first visible message does not move (T3). */
  anchored(change) {
    const edge = this.scroller.getBoundingClientRect().top;
    const anchor = [...this.list.children].find((node) => node.dataset.id && node.getBoundingClientRect().bottom > edge);
    const before = anchor?.getBoundingClientRect().top;
    change();
    if (anchor?.isConnected) this.scroller.scrollTop += anchor.getBoundingClientRect().top - before;
  }

  /** What stands above the oldest message. */
  say(...content) {
    this.anchored(() => fill(this.top, content));
  }

  toEnd() {
    if (this.to < this.rows.length) {
      this.window(Math.max(0, this.rows.length - PAGE), this.rows.length);
      this.paint();
      this.timeline.forget(this.rows, this.from, this.to);
    }
    this.following = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const below = scrollHeight - clientHeight - scrollTop;
    this.following = below < END_PX && this.to === this.rows.length;
    this.latest.hidden = this.following || below < clientHeight / 2;
    if (this.following) this.latest.classList.remove('news');
    if (scrollTop < NEAR_PX) this.backwards();
    else if (below < NEAR_PX && this.to < this.rows.length) this.forwards();
  }

  /** The window grows at the top, from memory or from the server. */
  async backwards() {
    if (this.from > 0) {
      this.shift(Math.max(0, this.from - PAGE), this.to, 'top');
      return;
    }
    if (!this.older || this.loadingOlder || this.stuck || this.rows.length === 0) return;
    this.loadingOlder = true;
    this.say(h('p', { class: 'thread-loading', role: 'status' }, h('span', { class: 'spinner' }), 'Loading older messages'));
    try {
      const rows = await this.page(this.rows[0].seq);
      this.older = rows.length >= PAGE;
      this.loadingOlder = false;
      this.anchored(() => {
        fill(this.top);
        this.merge(rows);
        this.window(Math.max(0, this.from - PAGE), this.to);
        this.trim('top');
        this.paint();
      });
      requestAnimationFrame(() => !this.signal.aborted && this.scrolled());
    } catch (error) {
      this.loadingOlder = false;
      // Scrolling does not ask again; somebody has to.
      this.stuck = true;
      const again = () => {
        this.stuck = false;
        this.backwards();
      };
      if (!this.signal.aborted) this.say(failure(error, again));
    }
  }

  forwards() {
    this.shift(this.from, Math.min(this.rows.length, this.to + PAGE), 'bottom');
  }

  shift(from, to, grown) {
    this.anchored(() => {
      this.window(from, to);
      this.trim(grown);
      this.paint();
    });
  }

  /** Drops messages at the other end from the page, not from memory (T2). */
  trim(grown) {
    if (this.to - this.from <= SHOWN_MAX) return;
    if (grown === 'top') this.to = this.from + SHOWN_MAX;
    else this.from = this.to - SHOWN_MAX;
    this.timeline.forget(this.rows, this.from, this.to);
  }
}

/** Tells screen readers. */
function announce(row) {
  const list = document.getElementById('announcer');
  const who = row.is_own ? 'Sent' : `From ${row.sender_display_name || row.sender_handle}`;
  list.append(h('p', {}, `${who}: ${preview(row).slice(0, 200)}`));
  while (list.childElementCount > 3) list.firstChild.remove();
}
