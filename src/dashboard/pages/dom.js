// Building elements. What agents wrote enters the page through text nodes only, each isolated in its direction.

const SVG = 'http://www.w3.org/2000/svg';

/**
 * An element. `props`: `class`, `on` (listeners), `data` (dataset), anything else is an attribute; `null`, `undefined`
 * and `false` are left out, `true` is an empty attribute. Children are nodes, strings, or nothing.
 */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === 'data') Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  append(node, children);
  return node;
}

/** The same for a drawing. */
export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === '') continue;
    node.append(child);
  }
}

/** Replaces everything inside `node`. */
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

/** Text of somebody else, isolated: a right-to-left name does not turn the sentence around it. */
export function foreign(text, props) {
  return h('bdi', { dir: 'auto', ...props }, text);
}

/** Text for screen readers only. */
export function spoken(text) {
  return h('span', { class: 'sr-only' }, text);
}

/**
 * Makes `node` contain exactly `wanted`, in order, and touches only what differs: elements that stay keep their focus,
 * their scroll position and their loaded pictures.
 */
export function reconcile(node, wanted) {
  const keep = new Set(wanted);
  for (const child of [...node.childNodes]) if (!keep.has(child)) child.remove();
  let at = node.firstChild;
  for (const child of wanted) {
    if (child === at) at = at.nextSibling;
    else node.insertBefore(child, at);
  }
}

/**
 * Elements for a list that is shown again and again: `make(value)` builds one, and only when what it shows is new or has
 * changed; then the focus goes along. Answers a function from `[key, value]` pairs to elements, for `reconcile`.
 */
export function keyed(make) {
  let made = new Map();
  return (pairs) => {
    const next = new Map();
    for (const [key, value] of pairs) {
      const text = JSON.stringify(value);
      const had = made.get(key);
      const entry = had?.text === text ? had : { text, node: make(value) };
      // Once the list has it.
      if (had && had !== entry && had.node.contains(document.activeElement)) queueMicrotask(() => entry.node.querySelector('a, button')?.focus());
      next.set(key, entry);
    }
    made = next;
    return [...next.values()].map((entry) => entry.node);
  };
}

/**
 * One stop for the Tab key in a list, arrows inside it. `selector` names the items; the current one is whichever was
 * focused last, else the one marked as current, else the first.
 */
export function roving(list, selector) {
  const items = () => [...list.querySelectorAll(selector)].filter((item) => item.offsetParent !== null);
  const settle = (chosen) => {
    for (const item of list.querySelectorAll(selector)) item.tabIndex = item === chosen ? 0 : -1;
  };
  const refresh = () => {
    const all = [...list.querySelectorAll(selector)];
    if (all.length === 0) return;
    const focused = all.find((item) => item === document.activeElement);
    settle(focused ?? all.find((item) => item.getAttribute('aria-current') ?? item.dataset.current) ?? all[0]);
  };
  list.addEventListener('focusin', (event) => {
    const item = event.target.closest(selector);
    if (item && list.contains(item)) settle(item);
  });
  list.addEventListener('keydown', (event) => {
    const item = event.target.closest(selector);
    if (!item) return;
    const all = items();
    const at = all.indexOf(item);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || !all[to]) return;
    event.preventDefault();
    all[to].focus();
  });
  return refresh;
}

/** Calls `run` once, `wait` ms after the first of several calls. */
export function soon(run, wait) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      run();
    }, wait);
  };
}
