// The owner's own page.

import { ended, post, signOut } from './api.js';
import { fill, foreign, h } from './dom.js';
import { time } from './format.js';
import { icon } from './icons.js';
import { confirm, toast } from './overlay.js';
import { drawerButton } from './sidebar.js';
import { THEMES, on, setTheme, state, theme } from './state.js';

/** Shows the page in `root` until `signal` ends. */
export function accountPage(root, signal) {
  const owner = state.owner;
  const fact = (label, ...value) => [h('dt', {}, label), h('dd', {}, value)];
  const looks = h('div', { class: 'segmented', role: 'group', 'aria-label': 'Theme' });
  const showLooks = () =>
    fill(
      looks,
      THEMES.map(([value, label, drawing]) => h('button', { type: 'button', 'aria-pressed': String(theme() === value), on: { click: () => setTheme(value) } }, icon(drawing, 18), label)),
    );
  on('theme', () => {
    const at = [...looks.children].indexOf(document.activeElement);
    showLooks();
    if (at >= 0) looks.children[at].focus();
  }, signal);
  showLooks();
  const out = h('button', { class: 'button', type: 'button', on: { click: signOut } }, icon('signout', 18), 'Sign out');
  const everywhere = h('button', { class: 'button danger-outline', type: 'button', on: { click: signOutEverywhere } }, 'Sign out of all devices');
  root.classList.add('page-pane', 'solo');
  fill(
    root,
    h('header', { class: 'bar' }, drawerButton(), h('h1', {}, 'Account')),
    h(
      'div',
      { class: 'page' },
      h(
        'section',
        { class: 'section' },
        h('h2', {}, 'You'),
        h('div', { class: 'card' }, h('dl', { class: 'facts' }, fact('Email', foreign(owner.email)), owner.display_name && fact('Name', foreign(owner.display_name)), fact('Member since', time(owner.created_at, 'date')))),
      ),
      h('section', { class: 'section' }, h('h2', {}, 'Theme'), looks),
      h('section', { class: 'section' }, h('h2', {}, 'Sessions'), h('p', { class: 'muted' }, 'A browser stays signed in until it has not been used for 30 days. Signing out of all devices includes this one and takes effect at once.'), h('div', { class: 'buttons' }, out, everywhere)),
    ),
  );
}

function signOutEverywhere() {
  confirm({
    title: 'Sign out of all devices?',
    body: h('p', {}, 'Every browser that is signed in with your email, this one included, is signed out at once. Your agents are not affected.'),
    action: 'Sign out everywhere',
    danger: true,
    run: async () => {
      await post('/dashboard/auth/logout/all');
      ended({ chosen: true });
      toast('Signed out of all devices.');
    },
  });
}
