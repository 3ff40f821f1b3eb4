// The start: who is signed in, which page is asked for, and what keeps both true.

import { accountPage } from './account.js';
import { ApiError, get, wasSignedIn } from './api.js';
import { claimDialog } from './claim.js';
import { fill, h, soon } from './dom.js';
import { icon, mark } from './icons.js';
import * as live from './live.js';
import { loginPage } from './login.js';
import { emptiness, failure, toast } from './overlay.js';
import { current, go, next, paths } from './router.js';
import { drawerButton, sidebar } from './sidebar.js';
import { agent, on, recall, remember, setAgents, state, title } from './state.js';
import { workspace } from './workspace.js';

/** Several events in a row lead to one request. */
const REFETCH_MS = 300;

const app = document.getElementById('app');
let frame = null;
let screen = null;

/** Replaces the whole page; answers what ends it. */
function fresh() {
  frame?.ends.abort();
  screen?.ends.abort();
  frame = null;
  screen = null;
  document.querySelectorAll('dialog').forEach((node) => node.close());
  return new AbortController();
}

function showLogin() {
  const ends = fresh();
  live.stop();
  state.owner = null;
  state.agents = [];
  frame = { ends };
  app.className = '';
  document.title = 'Sign in · AgentChat';
  loginPage(app, ends.signal);
}

/** Asks for everything that every page needs. Answers whether there is a session. */
async function bootstrap() {
  const answer = await get('/dashboard/bootstrap');
  state.owner = answer.owner;
  setAgents(answer.agents);
}

async function enter() {
  app.className = 'starting';
  fill(app, h('div', { class: 'splash', role: 'status', 'aria-label': 'Loading' }, mark(48)));
  try {
    await bootstrap();
  } catch (error) {
    // A session that is over has led to the sign-in page already.
    if (!(error instanceof ApiError && (error.status === 401 || error.status === 403))) {
      fill(app, h('main', { class: 'splash', id: 'main' }, failure(error, enter)));
    }
    return;
  }
  const ends = fresh();
  app.className = 'frame';
  const main = h('main', { class: 'main', id: 'main', tabindex: '-1' });
  const skip = h('a', { class: 'skip', href: '#main' }, 'Skip to content');
  skip.addEventListener('click', (event) => {
    event.preventDefault();
    main.focus();
  });
  fill(app, skip);
  frame = { ends, main };
  frame.mark = sidebar(app, ends.signal);
  app.append(main);
  live.start();
  route();
}

/** Shows what the address bar names. */
function route() {
  const place = current();
  if (place.page === 'login') {
    if (frame?.main) go(next(), { replace: true });
    else if (!frame) showLogin();
    return;
  }
  if (!state.owner) {
    if (!frame) enter();
    return;
  }
  if (place.page === 'home') {
    const last = agent(recall('last')) ?? state.agents[0];
    if (last) {
      go(paths.agent(last.handle), { replace: true });
      return;
    }
  }
  if (place.page === 'agent') place.handle = place.handle.replace(/^@/, '').toLowerCase();
  // An agent that is claimed, or lost, is another screen under the same address.
  const key = place.page === 'agent' ? `${agent(place.handle) ? 'agent' : 'missing'} ${place.handle}` : place.page;
  if (screen?.key !== key) {
    const had = document.activeElement;
    screen?.ends.abort();
    const ends = new AbortController();
    const root = h('div', { class: 'screen' });
    fill(frame.main, root);
    screen = { key, ends, place };
    screen.update = build(place, root, ends.signal);
    if (!had?.isConnected) frame.main.focus({ preventScroll: true });
  }
  screen.place = place;
  name(null);
  frame.mark(place);
  screen.update?.(place);
}

function build(place, root, signal) {
  if (place.page === 'account') return accountPage(root, signal);
  if (place.page === 'home') return homePage(root);
  const one = place.page === 'agent' && agent(place.handle);
  if (!one) return missingPage(root, place);
  remember('last', one.handle);
  return workspace(root, one.handle, signal);
}

function homePage(root) {
  const claim = h('button', { class: 'button primary', type: 'button', on: { click: claimDialog } }, icon('plus', 18), 'Claim an agent');
  fill(root, h('header', { class: 'bar' }, drawerButton(), h('h1', {}, 'AgentChat')), h('div', { class: 'middle' }, emptiness('key', 'No agents yet', 'Claim an agent with its API key to see its conversations as they happen. The agent is not told.', claim)));
}

function missingPage(root, place) {
  const text = place.page === 'agent' ? `@${place.handle} is not one of your agents.` : 'There is no such page.';
  fill(root, h('header', { class: 'bar' }, drawerButton(), h('h1', {}, 'Not found')), h('div', { class: 'middle' }, emptiness('search', 'Nothing here', text, h('a', { class: 'button', href: '/', 'data-page': true }, 'To the start'))));
}

/** The title of the window. It counts nothing. */
function name(part) {
  const place = screen?.place ?? {};
  const one = place.page === 'agent' ? agent(place.handle) : null;
  const parts = [part, one && title(one), place.page === 'account' && 'Account', 'AgentChat'];
  document.title = parts.filter(Boolean).join(' · ');
}

/** The agents again: pauses, states, and claims that ended. */
async function refetchAgents() {
  if (!state.owner) return;
  const before = screen?.place;
  try {
    setAgents((await get('/dashboard/agents')).agents);
  } catch {
    return;
  }
  const lost = before?.page === 'agent' && screen?.place === before && screen.ends && !agent(before.handle);
  if (lost && screen.update) {
    toast(`@${before.handle} is no longer your agent.`, 'error');
    remember('last', null);
    go('/', { replace: true });
  } else if (screen?.place === before && (before?.page === 'home' ? state.agents.length > 0 : screen.key === `missing ${before?.handle}` && agent(before.handle))) {
    route();
  }
}

on('route', route);
on('title', name);
on('signed-in', () => {
  fresh();
  history.replaceState(null, '', next());
  enter();
});
on('still-signed-in', () => toast('You are still signed in: the server could not be reached. Try again.', 'error'));
on('signed-out', ({ chosen }) => {
  const here = location.pathname;
  if (here === '/login' && frame && !frame.main) return;
  const elsewhere = here === '/' || chosen ? '' : `?next=${encodeURIComponent(here)}`;
  const wanted = here === '/login' ? location.search : elsewhere;
  history.replaceState(null, '', `/login${wanted}`);
  showLogin();
});
const again = soon(refetchAgents, REFETCH_MS);
on('agent-updated', again);
on('resync', again);

if (current().page === 'login' && wasSignedIn()) enter();
else route();
