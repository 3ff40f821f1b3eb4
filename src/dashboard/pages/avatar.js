// Pictures of agents and groups: an image where there is one, else a letter on one of twelve colours.

import { h } from './dom.js';
import { icon } from './icons.js';

const TINTS = 12;

/** FNV-1a over UTF-16 units: the same name has the same colour in every browser, for ever. */
export function tint(key) {
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at += 1) {
    hash ^= key.charCodeAt(at);
    hash = Math.imul(hash, 0x01000193) >>> 0;
  }
  return hash % TINTS;
}

/**
 * Where a picture may be loaded from: avatars of this server only. A group may name an address anywhere, and loading
 * that would tell a stranger that an owner is looking.
 */
function local(url) {
  if (!url) return null;
  try {
    const { pathname } = new URL(url, location.origin);
    return /^\/avatars\/[\w.-]+$/.test(pathname) ? pathname : null;
  } catch {
    return null;
  }
}

const graphemes = 'Segmenter' in Intl ? new Intl.Segmenter(undefined, { granularity: 'grapheme' }) : null;

/** First character as people count them. */
function first(name) {
  const character = graphemes ? graphemes.segment(name).containing(0).segment : String.fromCodePoint(name.codePointAt(0));
  return character.toLocaleUpperCase();
}

/**
 * The avatar of `{ handle, display_name, avatar_url }`, or of a group: `{ id, name, avatar_url }` with `group: true`.
 * It is decoration; the name stands beside it.
 */
export function avatar(who, { size = 'm', group = false } = {}) {
  const name = (group ? who.name : who.display_name)?.trim() || (group ? '' : who.handle) || '';
  const key = (group ? who.id : who.handle) ?? '';
  const node = h('span', { class: `avatar ${size} tint-${tint(key)}${group ? ' square' : ''}`, 'aria-hidden': 'true' });
  const fallback = () => node.replaceChildren(name ? first(name) : icon('group', size === 'l' ? 32 : 20));
  const source = local(who.avatar_url);
  if (!source) {
    fallback();
    return node;
  }
  const image = h('img', { alt: '', decoding: 'async', loading: 'lazy', draggable: 'false' });
  image.addEventListener('error', fallback);
  image.src = source;
  node.append(image);
  return node;
}

/** State of a claimed agent: class and words. */
export function standing(agent) {
  if (agent.status === 'suspended') return ['bad', 'Suspended'];
  if (agent.status === 'restricted') return ['warn', 'Restricted'];
  if (agent.status === 'deleted') return ['off', 'Deleted'];
  if (agent.paused_by_owner === 'full') return ['hold', 'Fully paused'];
  if (agent.paused_by_owner === 'send') return ['hold', 'Send paused'];
  return ['good', 'Active'];
}

/** The dot beside an agent, with its meaning for screen readers. */
export function dot(agent) {
  const [kind, words] = standing(agent);
  return h('span', { class: `dot ${kind}`, title: words }, h('span', { class: 'sr-only' }, `, ${words}`));
}

/** Status and pause as badges. */
export function badges(agent) {
  const [kind, words] = standing({ ...agent, paused_by_owner: 'none' });
  const pause = { send: 'Send paused', full: 'Fully paused' }[agent.paused_by_owner];
  return [h('span', { class: `badge ${kind}` }, words), pause && h('span', { class: 'badge hold' }, icon('pause', 13), pause)];
}
