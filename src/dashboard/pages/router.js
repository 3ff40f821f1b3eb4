// Addresses: which page a path names, and going from one to another without loading.

import { emit } from './state.js';

const HANDLE = '[^/]+';
const PAGES = [
  [/^\/login$/, () => ({ page: 'login' })],
  [/^\/$/, () => ({ page: 'home' })],
  [/^\/account$/, () => ({ page: 'account' })],
  [new RegExp(`^/agents/(${HANDLE})/conversations/([^/]+)$`), (handle, id) => ({ page: 'agent', pane: 'chat', handle, id })],
  [new RegExp(`^/agents/(${HANDLE})/(contacts|blocks|activity|settings)$`), (handle, pane) => ({ page: 'agent', pane, handle })],
  [new RegExp(`^/agents/(${HANDLE})$`), (handle) => ({ page: 'agent', pane: 'chat', handle })],
];

/** The page that the address bar names. */
export function current() {
  const path = location.pathname.replace(/(.)\/+$/, '$1');
  for (const [pattern, make] of PAGES) {
    const found = pattern.exec(path);
    if (found) return { path, ...make(...found.slice(1).map(plain)) };
  }
  return { path, page: 'missing' };
}

function plain(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Paths of pages. */
export const paths = {
  agent: (handle, pane) => `/agents/${encodeURIComponent(handle)}${pane ? `/${pane}` : ''}`,
  conversation: (handle, id) => `/agents/${encodeURIComponent(handle)}/conversations/${encodeURIComponent(id)}`,
};

/** Shows another page, or this one again: what it shows may be another thing by now. */
export function go(path, { replace = false } = {}) {
  const here = path === location.pathname + location.search;
  if (!here) history[replace ? 'replaceState' : 'pushState'](null, '', path);
  emit('route');
}

/** A path of this site to come back to after signing in, or the start. */
export function next() {
  const wanted = new URLSearchParams(location.search).get('next') ?? '/';
  const safe = URL.canParse(wanted, location.origin) ? new URL(wanted, location.origin) : null;
  return safe?.origin === location.origin && safe.pathname !== '/login' ? safe.pathname : '/';
}

// Links of the page are followed here; a new tab, a download or a modifier key stays the browser's business.
document.addEventListener('click', (event) => {
  const link = event.target instanceof Element ? event.target.closest('a[data-page]') : null;
  if (!link || event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute('href'));
});
window.addEventListener('popstate', () => emit('route'));
