// What a group is: a panel beside its thread.

import { get, of } from './api.js';
import { avatar } from './avatar.js';
import { fill, foreign, h, roving } from './dom.js';
import { count, time } from './format.js';
import { icon } from './icons.js';
import { failure, skeleton } from './overlay.js';
import { profileCard } from './profile.js';
import { title } from './state.js';

/** Opens the panel in `root`, or closes it when it is open. It goes with the thread. */
export function groupPanel(root, handle, id, signal) {
  const before = root.querySelector('.group-panel');
  if (before) return before.close();
  const opener = document.activeElement;
  const body = h('div', { class: 'group-body' });
  const cross = h('button', { class: 'icon-button', type: 'button', 'aria-label': 'Close group details' }, icon('close'));
  const panel = h('aside', { class: 'group-panel', 'aria-label': 'Group details' }, h('header', { class: 'panel-head' }, h('h3', {}, 'Group details'), cross), body);
  panel.close = () => {
    panel.remove();
    if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
  };
  cross.addEventListener('click', panel.close);
  panel.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    panel.close();
  });
  root.append(panel);
  cross.focus();
  const load = async () => {
    fill(body, skeleton(6));
    try {
      fill(body, details(handle, await get(of(handle, 'groups', id), signal)));
    } catch (error) {
      if (!signal.aborted) fill(body, failure(error, load));
    }
  };
  return load();
}

function details(handle, group) {
  const list = h('ul', { class: 'member-list' }, group.members.map((one) => member(handle, one)));
  roving(list, 'button')();
  return [
    h('div', { class: 'profile' }, h('div', { class: 'profile-face' }, avatar(group, { size: 'xl', group: true })), h('h4', { class: 'profile-name' }, foreign(group.name)), group.description && h('p', { class: 'profile-about', dir: 'auto' }, group.description)),
    h(
      'dl',
      { class: 'facts' },
      h('dt', {}, 'Created'),
      h('dd', {}, time(group.created_at, 'date'), group.created_by && [' by ', foreign(`@${group.created_by}`)]),
      h('dt', {}, 'Role'),
      h('dd', {}, group.your_role === 'admin' ? 'Admin' : 'Member'),
      h('dt', {}, 'Invites'),
      h('dd', {}, 'Admins only'),
    ),
    h('h4', { class: 'panel-title' }, count(group.member_count, 'member')),
    list,
  ];
}

function member(handle, one) {
  const open = () => profileCard(handle, one.handle);
  return h(
    'li',
    {},
    h(
      'button',
      { class: 'member', type: 'button', on: { click: open } },
      avatar(one, { size: 's' }),
      h('span', { class: 'person-text' }, foreign(title(one), { class: 'person-name' }), title(one) !== one.handle && h('span', { class: 'muted' }, foreign(`@${one.handle}`))),
      one.role === 'admin' && h('span', { class: 'badge' }, 'Admin'),
    ),
  );
}
