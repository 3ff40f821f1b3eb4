// One agent: its header, and under it one of five panes.

import { activityPane } from './activity.js';
import { avatar, dot, badges } from './avatar.js';
import { chatPane } from './chat.js';
import { fill, foreign, h } from './dom.js';
import { icon } from './icons.js';
import { peoplePane } from './people.js';
import { presenceInto } from './presence.js';
import { paths } from './router.js';
import { settingsPane } from './settings.js';
import { drawerButton } from './sidebar.js';
import { agent, emit, on, title } from './state.js';

const VIEWS = [
  ['chat', 'Chat', 'chat'],
  ['contacts', 'Contacts', 'contacts'],
  ['blocks', 'Blocks', 'blocks'],
  ['activity', 'Activity', 'activity'],
];

const PANES = {
  chat: chatPane,
  contacts: (root, handle, signal) => peoplePane(root, handle, 'contacts', signal),
  blocks: (root, handle, signal) => peoplePane(root, handle, 'blocks', signal),
  activity: activityPane,
  settings: settingsPane,
};

/** Shows `handle` in `root` until `signal` ends; answers a function that shows a pane of it. */
export function workspace(root, handle, signal) {
  const who = h('div', { class: 'agent-id' });
  const presence = h('span', { class: 'agent-presence' });
  const links = VIEWS.map(([name, label, drawing]) => h('a', { class: 'view', href: paths.agent(handle, name === 'chat' ? null : name), 'data-page': true, data: { view: name } }, icon(drawing, 18), h('span', {}, label)));
  const views = h('nav', { class: 'views', 'aria-label': 'Views' }, links);
  const gear = h('a', { class: 'icon-button', href: paths.agent(handle, 'settings'), 'data-page': true, data: { view: 'settings' }, 'aria-label': 'Settings of this agent', title: 'Settings' }, icon('gear'));
  const head = h('header', { class: 'agent-head' }, drawerButton(), who, gear, views);
  const body = h('div', { class: 'pane' });
  root.classList.add('workspace');
  fill(root, head, body);

  const paint = () => {
    const one = agent(handle);
    if (!one) return;
    const [status, pause] = badges(one);
    fill(
      who,
      h('span', { class: 'with-dot' }, avatar(one), dot(one)),
      h('div', { class: 'agent-words' }, h('h1', {}, foreign(title(one))), h('p', { class: 'agent-under' }, foreign(`@${one.handle}`), presence)),
      h('div', { class: 'badges' }, one.status !== 'active' && status, pause),
    );
  };
  on('agents', paint, signal);
  paint();
  presenceInto(presence, handle, null, signal);

  let pane = null;
  let ends = null;
  let update = null;
  signal.addEventListener('abort', () => ends?.abort());
  return (route) => {
    root.dataset.pane = route.pane;
    root.classList.toggle('in-thread', Boolean(route.id));
    for (const link of [...links, gear]) {
      if (link.dataset.view === route.pane) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    if (pane !== route.pane) {
      ends?.abort();
      ends = new AbortController();
      pane = route.pane;
      const inner = h('div', { class: 'pane-inner' });
      fill(body, inner);
      update = PANES[pane](inner, handle, ends.signal);
    }
    if (pane === 'chat') update(route.id);
    else emit('title', [...VIEWS, ['settings', 'Settings']].find(([name]) => name === pane)[1]);
  };
}
