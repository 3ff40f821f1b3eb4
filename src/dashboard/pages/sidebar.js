// The sidebar: agents, the way to claim one, the owner. It folds to a rail of icons; on a narrow screen it is a drawer.

import { signOut } from './api.js';
import { avatar, dot } from './avatar.js';
import { claimDialog } from './claim.js';
import { fill, foreign, h, roving, spoken } from './dom.js';
import { icon, mark } from './icons.js';
import { menu } from './overlay.js';
import { paths } from './router.js';
import { THEMES, on, recall, remember, setTheme, state, theme, title } from './state.js';

const LIVE = { open: ['good', 'Live'], connecting: ['hold', 'Connecting'], waiting: ['hold', 'Reconnecting'], off: ['off', 'Not connected'] };

let frame = null;

/** Opens or closes the drawer. */
export function drawer(open) {
  if (!frame) return;
  const was = frame.classList.contains('drawer-open');
  frame.classList.toggle('drawer-open', open);
  frame.querySelector('.main').inert = open;
  if (open) (frame.querySelector('.agent[aria-current]') ?? frame.querySelector('.agent, .side-title button'))?.focus();
  else if (was) frame.querySelector('.drawer-button')?.focus();
}

/** The button that opens the drawer; seen on narrow screens only. */
export function drawerButton() {
  return h('button', { class: 'icon-button drawer-button', type: 'button', 'aria-label': 'Open menu', on: { click: () => drawer(true) } }, icon('menu'));
}

/** Builds the sidebar of `root`, which lives until `signal` ends; answers a function that marks the current page. */
export function sidebar(root, signal) {
  frame = root;
  let place = {};
  const rail = () => recall('rail') === 'yes';
  const list = h('ul', { class: 'agents', 'aria-labelledby': 'agents-title' });
  const settle = roving(list, 'a.agent');
  const number = h('span', { class: 'count' });
  const collapse = h('button', { class: 'icon-button collapse', type: 'button', on: { click: () => fold(!rail()) } }, icon('panel'));
  const live = h('p', { class: 'live', role: 'status' });
  const email = state.owner.email;
  const owner = h('button', { class: 'owner', type: 'button' }, spoken('Your account: '), avatar({ handle: email, display_name: state.owner.display_name }, { size: 's' }), foreign(email, { class: 'owner-email label-text' }), icon('chevron', 16));
  menu(owner, () => [
    { heading: email },
    { label: 'Account', icon: 'user', href: '/account' },
    { heading: 'Theme' },
    ...THEMES.map(([value, label, drawing]) => ({ label, icon: drawing, checked: theme() === value, run: () => setTheme(value) })),
    { heading: '' },
    { label: 'Sign out', icon: 'signout', run: signOut },
  ], { label: 'Your account', up: true });
  const claim = h('button', { class: 'icon-button', type: 'button', 'aria-label': 'Claim an agent', title: 'Claim an agent', on: { click: claimDialog } }, icon('plus'));
  const account = h('a', { class: 'side-link', href: '/account', 'data-page': true, title: 'Account settings' }, icon('gear'), h('span', { class: 'label-text' }, 'Account settings'));
  const side = h(
    'nav',
    { class: 'sidebar', 'aria-label': 'Agents and account' },
    h('div', { class: 'side-head' }, h('a', { class: 'brand', href: '/', 'data-page': true, 'aria-label': 'AgentChat, start' }, mark(28), h('span', { class: 'label-text', 'aria-hidden': 'true' }, 'AgentChat')), collapse),
    h('div', { class: 'side-title' }, h('h2', { id: 'agents-title', class: 'label-text' }, 'Agents ', number), claim),
    list,
    h('div', { class: 'side-foot' }, live, h('a', { class: 'side-link', href: '/docs', target: '_blank', rel: 'noopener', title: 'Documentation' }, icon('book'), h('span', { class: 'label-text' }, 'Documentation', spoken(' (opens in a new tab)'))), account, h('div', { class: 'owner-field' }, owner)),
  );
  const veil = h('div', { class: 'veil', on: { click: () => drawer(false) } });
  side.addEventListener('keydown', (event) => event.key === 'Escape' && drawer(false));

  const fold = (folded) => {
    remember('rail', folded ? 'yes' : null);
    root.classList.toggle('rail', folded);
    const label = folded ? 'Show the sidebar' : 'Fold the sidebar';
    collapse.setAttribute('aria-label', label);
    collapse.title = label;
    collapse.setAttribute('aria-expanded', String(!folded));
  };
  const paint = () => {
    number.textContent = state.agents.length > 0 ? String(state.agents.length) : '';
    const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
    fill(list, state.agents.map((one) => item(one, place)));
    settle();
    if (focused) [...list.querySelectorAll('a')].find((link) => link.getAttribute('href') === focused)?.focus();
    if (place.page === 'account') account.setAttribute('aria-current', 'page');
    else account.removeAttribute('aria-current');
  };
  const paintLive = () => {
    const [kind, words] = LIVE[state.live];
    fill(live, h('span', { class: `dot ${kind}` }), h('span', { class: 'label-text' }, words));
    live.title = words;
  };
  on('agents', paint, signal);
  on('live', paintLive, signal);
  fold(rail());
  paintLive();
  root.append(side, veil);
  return (route) => {
    place = route;
    drawer(false);
    paint();
  };
}

function item(one, place) {
  const here = place.page === 'agent' && place.handle === one.handle;
  return h(
    'li',
    { class: 'agent-row' },
    h(
      'a',
      { class: 'agent', href: paths.agent(one.handle), 'data-page': true, 'aria-current': here ? 'page' : null, title: `${title(one)} (@${one.handle})` },
      h('span', { class: 'with-dot' }, avatar(one), dot(one)),
      h('span', { class: 'agent-text label-text' }, foreign(title(one), { class: 'agent-name' }), h('span', { class: 'muted' }, foreign(`@${one.handle}`))),
    ),
    h('a', { class: 'icon-button small agent-gear', href: paths.agent(one.handle, 'settings'), 'data-page': true, 'aria-label': `Settings of ${title(one)}`, title: 'Settings' }, icon('gear', 18)),
  );
}
