// What lies over the page: dialogs, menus, toasts.

import { explain } from './api.js';
import { h, fill } from './dom.js';
import { icon } from './icons.js';

/** A toast stays this long. */
const TOAST_MS = 5_000;
/** More toasts than this at a time are noise. */
const TOASTS_MAX = 3;

let names = 0;

/**
 * A modal dialog. Escape, the cross and a click outside close it; the focus returns to where it was.
 * Answers `{ node, close }`.
 */
export function dialog({ title, body, footer, kind = '', onClose }) {
  names += 1;
  const id = `dialog-${names}`;
  const cross = h('button', { class: 'icon-button', type: 'button', 'aria-label': 'Close' }, icon('close'));
  const head = h('header', { class: 'dialog-head' }, h('h2', { id, tabindex: '-1' }, title), cross);
  const inner = h('div', { class: 'dialog-inner' }, head, h('div', { class: 'dialog-body' }, body), footer && h('footer', { class: 'dialog-foot' }, footer));
  const node = h('dialog', { class: `dialog ${kind}`, 'aria-labelledby': id }, inner);
  const close = () => node.close();
  cross.addEventListener('click', close);
  let pressedOutside = false;
  node.addEventListener('pointerdown', (event) => {
    pressedOutside = event.target === node;
  });
  node.addEventListener('click', (event) => {
    if (event.target === node && pressedOutside) close();
  });
  node.addEventListener('close', () => {
    node.remove();
    onClose?.();
  });
  document.body.append(node);
  node.showModal();
  (node.querySelector('[autofocus]') ?? head.firstChild).focus();
  return { node, close };
}

/** Asks before something is done; `run` does it. A failure is shown in the dialog, which stays open. */
export function confirm({ title, body, action, danger = false, run }) {
  const problem = h('p', { class: 'problem', role: 'alert', hidden: true });
  const cancel = h('button', { class: 'button', type: 'button', autofocus: danger }, 'Cancel');
  const go = h('button', { class: `button ${danger ? 'danger' : 'primary'}`, type: 'button', autofocus: !danger }, action);
  const { close } = dialog({ title, body: [body, problem], footer: [cancel, go], kind: 'small' });
  cancel.addEventListener('click', close);
  go.addEventListener('click', async () => {
    problem.hidden = true;
    const done = await busy(go, run).catch((error) => {
      problem.textContent = explain(error);
      problem.hidden = false;
      return false;
    });
    if (done !== false) close();
  });
}

/** Runs something behind a button that shows it is at work. */
export async function busy(button, run) {
  const focused = document.activeElement === button;
  button.disabled = true;
  button.classList.add('busy');
  try {
    return await run();
  } finally {
    button.disabled = false;
    button.classList.remove('busy');
    // What is disabled loses the focus; whoever took it meanwhile keeps it.
    if (focused && document.activeElement === document.body) button.focus();
  }
}

/** A short notice that goes by itself. */
export function toast(text, kind = 'info') {
  const list = document.getElementById('toasts');
  const cross = h('button', { class: 'icon-button small', type: 'button', 'aria-label': 'Dismiss' }, icon('close', 16));
  const node = h('div', { class: `toast ${kind}` }, icon(kind === 'error' ? 'warning' : 'check', 18), h('span', {}, text), cross);
  const leave = () => node.remove();
  cross.addEventListener('click', leave);
  setTimeout(leave, TOAST_MS);
  list.append(node);
  while (list.childElementCount > TOASTS_MAX) list.firstChild.remove();
}

/**
 * A menu under a button. `items` is called at each opening and answers `{ label, icon, run, checked }` or `{ heading }`.
 * An item with `checked` set is a choice; `href` makes it a link. `label` names the menu.
 */
export function menu(button, items, { label, up = false }) {
  button.setAttribute('aria-haspopup', 'menu');
  button.setAttribute('aria-expanded', 'false');
  let list = null;
  const close = (refocus) => {
    list?.remove();
    list = null;
    button.setAttribute('aria-expanded', 'false');
    document.removeEventListener('pointerdown', outside, true);
    if (refocus) button.focus();
  };
  const outside = (event) => {
    if (!list.contains(event.target) && !button.contains(event.target)) close(false);
  };
  const move = (step) => {
    const all = [...list.querySelectorAll('[role^=menuitem]')];
    const at = all.indexOf(document.activeElement);
    all.at(step === 'first' ? 0 : step === 'last' ? -1 : (at + step + all.length) % all.length)?.focus();
  };
  const open = () => {
    list = h('div', { class: `menu ${up ? 'up' : ''}`, role: 'menu', 'aria-label': label });
    fill(list, items().map((item) => entry(item, close)));
    list.addEventListener('keydown', (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1, Home: 'first', End: 'last' }[event.key];
      if (event.key === 'Escape') close(true);
      else if (event.key === 'Tab') close(false);
      else if (step) move(step);
      else return;
      if (event.key !== 'Tab') event.preventDefault();
      event.stopPropagation();
    });
    button.after(list);
    button.setAttribute('aria-expanded', 'true');
    document.addEventListener('pointerdown', outside, true);
    move('first');
  };
  button.addEventListener('click', () => (list ? close(false) : open()));
  button.addEventListener('keydown', (event) => {
    if (list || (event.key !== 'ArrowDown' && event.key !== 'ArrowUp')) return;
    event.preventDefault();
    open();
  });
}

function entry(item, close) {
  if (item.heading === '') return h('div', { class: 'menu-line', role: 'separator' });
  if (item.heading) return h('div', { class: 'menu-heading', role: 'presentation' }, item.heading);
  const choice = item.checked !== undefined;
  const props = { class: 'menu-item', role: choice ? 'menuitemradio' : 'menuitem', tabindex: '-1' };
  if (choice) props['aria-checked'] = String(item.checked);
  const content = [icon(item.icon, 18), h('span', { class: 'grow' }, item.label), item.checked && icon('check', 18)];
  if (item.href) {
    const page = item.href.startsWith('/docs') ? { target: '_blank', rel: 'noopener' } : { 'data-page': true };
    return h('a', { ...props, ...page, href: item.href, on: { click: () => close(false) } }, content);
  }
  const run = () => {
    close(true);
    item.run();
  };
  return h('button', { ...props, type: 'button', on: { click: run } }, content);
}

/** What a list shows while it loads. */
export function skeleton(rows, kind = 'row') {
  return h('div', { class: `skeletons ${kind}`, role: 'status', 'aria-label': 'Loading' }, Array.from({ length: rows }, () => h('div', { class: 'skeleton' }, h('i'), h('b'), h('u'))));
}

/** What stands where there is nothing. */
export function emptiness(drawing, title, text, ...actions) {
  return h('div', { class: 'emptiness' }, h('div', { class: 'emptiness-icon' }, icon(drawing, 28)), h('p', { class: 'emptiness-title' }, title), text && h('p', {}, text), actions);
}

/** What stands where something could not be loaded. */
export function failure(error, retry) {
  const again = h('button', { class: 'button', type: 'button', on: { click: retry } }, 'Try again');
  const node = emptiness('warning', 'This could not be loaded', explain(error), again);
  node.setAttribute('role', 'alert');
  return node;
}
