// What a message says: text as text, events as sentences, files as cards, anything else as JSON.

import { of } from './api.js';
import { h, fill, foreign } from './dom.js';
import { kindOf, size } from './format.js';
import { icon } from './icons.js';

/** Text beyond this is folded, so that one message never fills several screens unasked. */
const FOLD = { characters: 1_600, lines: 24 };
/** JSON beyond this is not coloured: thousands of elements for one message would be. */
const COLOUR_MAX = 12_000;

/** The plain text of a message, if it has one. */
export function textOf(row) {
  const content = row.content ?? {};
  if (typeof content.text === 'string' && content.text !== '') return content.text;
  if (typeof content.body === 'string' && content.body !== '') return content.body;
  return null;
}

/** One line for a list or an announcement. */
export function preview(row) {
  if (row.type === 'system') return sentence(row.content?.data)?.map((part) => part.text ?? part).join('') ?? 'Group event';
  return textOf(row) ?? { file: 'File', structured: 'Structured message' }[row.type] ?? row.type;
}

/** The inside of a bubble. */
export function bodyOf(row, handle) {
  const content = row.content ?? {};
  const text = textOf(row);
  const parts = [];
  if (text !== null) parts.push(folded(text));
  if (typeof content.attachment_id === 'string') parts.push(file(row, handle));
  const { text: _text, body, attachment_id: _attachment, type: _type, ...rest } = content;
  if (text !== body && body !== undefined) rest.body = body;
  if (Object.keys(rest).length > 0) {
    const value = Object.keys(rest).length === 1 && rest.data !== undefined ? rest.data : rest;
    parts.push(json(value, parts.length === 0 ? row.type : 'data'));
  }
  if (parts.length === 0) parts.push(json(content, row.type));
  return parts;
}

function folded(text) {
  const node = h('div', { class: 'text', dir: 'auto' }, text);
  if (text.length <= FOLD.characters && text.split('\n', FOLD.lines + 1).length <= FOLD.lines) return node;
  return fold(node);
}

/** Cuts something tall, with a button that shows all of it. */
function fold(node) {
  node.classList.add('folded');
  const button = h('button', { class: 'text-button', type: 'button', 'aria-expanded': 'false' }, 'Show all');
  button.addEventListener('click', () => {
    const open = node.classList.toggle('folded') === false;
    button.textContent = open ? 'Show less' : 'Show all';
    button.setAttribute('aria-expanded', String(open));
  });
  return [node, button];
}

/** Pretty-printed JSON under the label of its type. */
export function json(value, label) {
  const text = JSON.stringify(value, null, 2) ?? 'null';
  const code = h('code', { dir: 'ltr' });
  if (text.length <= COLOUR_MAX) fill(code, coloured(text));
  else code.textContent = text;
  const copy = h('button', { class: 'icon-button small', type: 'button', 'aria-label': 'Copy JSON', title: 'Copy JSON' }, icon('copy', 16));
  copy.addEventListener('click', async () => {
    await navigator.clipboard?.writeText(text).catch(() => undefined);
    copy.classList.add('done');
    setTimeout(() => copy.classList.remove('done'), 1_200);
  });
  const pre = h('pre', { tabindex: '0', 'aria-label': `${label}, JSON` }, code);
  const tall = text.split('\n', FOLD.lines + 1).length > FOLD.lines;
  return h('div', { class: 'json' }, h('div', { class: 'json-head' }, icon('code', 16), h('span', { class: 'grow' }, label), copy), tall ? fold(pre) : pre);
}

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

function coloured(text) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(TOKEN)) {
    parts.push(text.slice(at, found.index));
    const kind = found[2] ? 'key' : found[1] ? 'string' : /^[tfn]/.test(found[0]) ? 'word' : 'number';
    parts.push(h('span', { class: `j-${kind}` }, found[1] ?? found[0]), found[2] ?? '');
    at = found.index + found[0].length;
  }
  parts.push(text.slice(at));
  return parts;
}

/** A card for an attachment. Its bytes are fetched only when somebody asks for them. */
function file(row, handle) {
  const { content } = row;
  const about = row.attachment ?? {};
  const name = about.filename ?? 'Attachment';
  const facts = [kindOf(about.content_type), size(about.size)].filter(Boolean).join(' · ');
  return h(
    'a',
    { class: 'file', href: of(handle, 'attachments', content.attachment_id), target: '_blank', rel: 'noopener noreferrer' },
    h('span', { class: 'file-icon' }, icon('file')),
    h('span', { class: 'file-text' }, foreign(name, { class: 'file-name' }), h('span', { class: 'muted' }, facts || 'Open file')),
    icon('download', 18),
  );
}

const name = (text) => ({ text: typeof text === 'string' && text !== '' ? `@${text}` : 'Somebody' });

/** A group event as a sentence: strings, and `{ text }` for what agents wrote. Nothing for an event not known here. */
function sentence(data) {
  if (!data || typeof data !== 'object') return null;
  const actor = name(data.actor_handle);
  const target = name(data.agent_handle);
  switch (data.event) {
    case 'member_joined':
      return [target, ' joined the group'];
    case 'member_left':
      return [target, ' left the group'];
    case 'member_removed':
      return [actor, ' removed ', target];
    case 'admin_promoted':
      return data.actor_handle ? [actor, ' made ', target, ' an admin'] : [target, ' is an admin now'];
    case 'admin_demoted':
      return [actor, ' took the admin role from ', target];
    case 'name_changed':
      return [actor, ' named the group “', { text: String(data.new_name ?? '') }, '”'];
    case 'description_changed':
      return [actor, ' changed the description'];
    case 'avatar_changed':
      return [actor, ' changed the picture'];
    case 'group_deleted':
      return [actor, ' deleted the group'];
    default:
      return null;
  }
}

/** A group event for the middle of the thread. */
export function eventOf(row) {
  const parts = row.type === 'system' ? sentence(row.content?.data) : null;
  return parts?.map((part) => (typeof part === 'string' ? part : foreign(part.text))) ?? null;
}
