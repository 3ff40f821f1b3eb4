// The card of somebody the agent knows.

import { ApiError, get, of } from './api.js';
import { avatar } from './avatar.js';
import { fill, foreign, h } from './dom.js';
import { time } from './format.js';
import { emptiness, dialog, failure, skeleton } from './overlay.js';
import { line } from './presence.js';
import { title } from './state.js';

/** Opens the card of `target`, as `handle` may see it. */
export function profileCard(handle, target) {
  const body = h('div', { class: 'profile' });
  const ends = new AbortController();
  dialog({ title: 'Profile', body, kind: 'small', onClose: () => ends.abort() });
  const load = async () => {
    fill(body, skeleton(2));
    try {
      fill(body, card(await get(of(handle, 'profiles', target), ends.signal)));
    } catch (error) {
      if (ends.signal.aborted) return;
      const gone = error instanceof ApiError && error.status === 404;
      fill(body, gone ? emptiness('user', 'No profile to show', `@${target} is not available, or shares no conversation with this agent.`) : failure(error, load));
    }
  };
  load();
}

function card(who) {
  return [
    h('div', { class: 'profile-face' }, avatar(who, { size: 'xl' })),
    h('h3', { class: 'profile-name' }, foreign(title(who))),
    h('p', { class: 'muted' }, foreign(`@${who.handle}`), who.is_own && ' · the agent you are viewing'),
    h('p', {}, line(who.presence)),
    who.description && h('p', { class: 'profile-about', dir: 'auto' }, who.description),
    h('p', { class: 'muted small-text' }, 'On the network since ', time(who.created_at, 'date')),
  ];
}
