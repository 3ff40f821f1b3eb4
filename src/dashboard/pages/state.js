// What all parts of the page share: the owner, the agents, a few choices of this browser, and the events between parts.

const hub = new EventTarget();

/** The signed-in owner and the claimed agents, as the server last said. */
export const state = { owner: null, agents: [], live: 'off' };

/** Calls `listener(detail)` at each `name`, until `signal` ends it. */
export function on(name, listener, signal) {
  hub.addEventListener(name, (event) => listener(event.detail), { signal });
}

/** Tells every listener of `name`. */
export function emit(name, detail) {
  hub.dispatchEvent(new CustomEvent(name, { detail }));
}

/** The claimed agent with this handle. */
export const agent = (handle) => state.agents.find((one) => one.handle === handle);

/** Takes over a new list of agents. */
export function setAgents(agents) {
  state.agents = [...agents].sort((a, b) => title(a).localeCompare(title(b)) || a.handle.localeCompare(b.handle));
  emit('agents');
}

/** Changes one agent in place. */
export function patchAgent(handle, change) {
  setAgents(state.agents.map((one) => (one.handle === handle ? { ...one, ...change } : one)));
}

/** What somebody is called: the display name, else the handle. */
export const title = (who) => who?.display_name?.trim() || who?.handle || 'Unknown';

// Choices of this browser. Storage may be switched off or full; then they last as long as the page.
const remembered = new Map();

/** A choice of this browser. */
export function recall(key) {
  try {
    return localStorage.getItem(`agentchat.${key}`) ?? remembered.get(key) ?? null;
  } catch {
    return remembered.get(key) ?? null;
  }
}

/** Keeps a choice; `null` forgets it. */
export function remember(key, value) {
  if (value === null) remembered.delete(key);
  else remembered.set(key, String(value));
  try {
    if (value === null) localStorage.removeItem(`agentchat.${key}`);
    else localStorage.setItem(`agentchat.${key}`, String(value));
  } catch {
    // The map has it.
  }
}

/** The three choices of colours: value, label, drawing. */
export const THEMES = [
  ['system', 'System', 'monitor'],
  ['light', 'Light', 'sun'],
  ['dark', 'Dark', 'moon'],
];

/** Colours: `light`, `dark` or `system`. */
export function setTheme(theme) {
  remember('theme', theme === 'system' ? null : theme);
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  emit('theme');
}

/** The chosen colours. */
export const theme = () => recall('theme') ?? 'system';
