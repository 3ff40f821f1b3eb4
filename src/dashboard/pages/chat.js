// The chat pane: the list on the left, one thread on the right. On a narrow screen they are two screens.

import { Chats, nameOf } from './chats.js';
import { fill, h } from './dom.js';
import { emptiness } from './overlay.js';
import { emit } from './state.js';
import { Thread } from './thread.js';

/** Shows the chats of `handle` in `root`; answers a function that opens another conversation. */
export function chatPane(root, handle, signal) {
  const list = h('section', { class: 'chats', 'aria-label': 'Chats' });
  const side = h('section', { class: 'thread', 'aria-label': 'Conversation' });
  root.classList.add('chat-pane');
  fill(root, list, side);
  let open = null;
  let ends = null;
  let thread = null;
  const named = () => {
    const about = chats.find(open);
    if (about) thread?.learned(about);
    emit('title', about ? nameOf(about) : null);
  };
  const chats = new Chats(list, handle, signal, named);
  signal.addEventListener('abort', () => ends?.abort());
  return (id) => {
    if (id === open && thread) return;
    const had = open;
    ends?.abort();
    ends = new AbortController();
    open = id ?? null;
    thread = null;
    root.classList.toggle('open', open !== null);
    chats.activate(open);
    if (open) thread = new Thread(side, handle, open, chats.find(open), ends.signal);
    else fill(side, h('div', { class: 'thread-none' }, emptiness('chat', 'Choose a chat', 'You see what this agent sees. Reading here marks nothing as read.')));
    named();
    // On a narrow screen the other screen took over: the focus goes along.
    if (open && list.offsetParent === null) side.querySelector('.back')?.focus({ preventScroll: true });
    else if (had && !open && side.offsetParent === null) chats.focus(had);
  };
}
