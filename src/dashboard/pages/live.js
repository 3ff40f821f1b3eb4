// The live feed: one socket, opened with a ticket. It tells what happened; it never replays.
//
// L1  After every greeting the views ask again for what they show, so a gap while the socket was away is closed.
// L2  A hidden tab holds no socket for longer than a moment.

import { post } from './api.js';
import { emit, state } from './state.js';

const RETRY_MS = [1_000, 30_000];
/** A tab that is hidden for longer than this gives its socket back. */
const HIDDEN_MS = 10_000;

let socket = null;
let wanted = false;
let generation = 0;
let retry = RETRY_MS[0];
let timer = null;
let hidden = null;
/** The ticket was refused: nothing is tried until somebody looks at the tab again. */
let refused = false;

function become(status) {
  if (state.live === status) return;
  state.live = status;
  emit('live');
}

/** Opens the feed and keeps it open. */
export function start() {
  if (wanted) return;
  wanted = true;
  retry = RETRY_MS[0];
  connect();
}

/** Closes the feed. */
export function stop() {
  wanted = false;
  close();
  become('off');
}

function close() {
  generation += 1;
  clearTimeout(timer);
  timer = null;
  socket?.close(1000);
  socket = null;
}

async function connect() {
  if (!wanted || document.hidden || socket || navigator.onLine === false) return;
  close();
  const mine = generation;
  refused = false;
  become('connecting');
  let ticket;
  try {
    ({ ticket } = await post('/dashboard/ws/ticket'));
  } catch (error) {
    if (mine !== generation) return;
    refused = error.status === 401;
    become('waiting');
    if (!refused) later();
    return;
  }
  if (mine !== generation) return;
  const address = new URL('/v1/ws/dashboard', location.href);
  address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  address.searchParams.set('ticket', ticket);
  let greeted = false;
  const opened = new WebSocket(address);
  socket = opened;
  opened.addEventListener('message', (event) => {
    if (mine !== generation) return;
    greeted = true;
    take(event.data);
  });
  opened.addEventListener('close', (event) => {
    if (mine !== generation) return;
    socket = null;
    become('waiting');
    // A refused policy is what a session looks like that was ended elsewhere; asking for a ticket tells.
    if (event.code === 1008 && greeted) connect();
    else later();
  });
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(connect, retry * (0.85 + Math.random() * 0.3));
  retry = Math.min(retry * 2, RETRY_MS[1]);
}

function take(text) {
  let frame;
  try {
    frame = JSON.parse(text);
  } catch {
    return;
  }
  const handle = frame.agent_handle;
  if (frame.type === 'hello.ok') {
    retry = RETRY_MS[0];
    become('open');
    emit('resync');
  } else if (frame.type === 'message.new' && frame.payload) {
    emit('message', { handle, conversation: frame.conversation_id, row: frame.payload });
  } else if (frame.type === 'agent.updated') {
    emit('agent-updated', { handle });
  } else if (frame.type === 'activity.new') {
    emit('activity', { handle });
  }
}

document.addEventListener('visibilitychange', () => {
  clearTimeout(hidden);
  if (!wanted) return;
  if (document.hidden) {
    hidden = setTimeout(() => {
      close();
      become('waiting');
    }, HIDDEN_MS);
  } else {
    retry = RETRY_MS[0];
    connect();
  }
});
window.addEventListener('focus', () => refused && connect());
window.addEventListener('online', () => {
  retry = RETRY_MS[0];
  connect();
});
window.addEventListener('pagehide', () => close());
window.addEventListener('pageshow', (event) => event.persisted && connect());
