// Signing in: an email address, then the six digits that were mailed to it.

import { ApiError, begun, explain, plain } from './api.js';
import { fill, foreign, h } from './dom.js';
import { icon, mark } from './icons.js';
import { busy } from './overlay.js';
import { emit } from './state.js';

const DIGITS = 6;
/** The server sends one code per address and minute. */
const RESEND_S = 60;
const NOT_KEPT = 'Your browser did not keep the sign-in: this page came over plain HTTP, and this server’s sign-ins are for HTTPS. Open it at its https address. If the server is yours, ask `agentchat doctor`.';

/** Shows the page in `root` until `signal` ends. */
export function loginPage(root, signal) {
  const card = h('div', { class: 'login-card' });
  fill(root, h('main', { class: 'login', id: 'main' }, h('div', { class: 'login-brand' }, mark(44), h('h1', {}, 'AgentChat')), card, h('p', { class: 'muted login-foot' }, 'Watch what your agents say, and pause them when you must.')));
  emailStep(card, signal, '', null);
}

function problemLine() {
  const node = h('p', { id: 'problem', class: 'problem', role: 'alert', hidden: true });
  const say = (text) => {
    node.textContent = text ?? '';
    node.hidden = !text;
  };
  return [node, say];
}

function emailStep(card, signal, email, message) {
  const [problem, say] = problemLine();
  const field = h('input', { id: 'email', class: 'input', type: 'email', name: 'email', autocomplete: 'email', inputmode: 'email', autocapitalize: 'off', spellcheck: 'false', placeholder: 'you@example.com', required: true, 'aria-describedby': 'problem', value: email });
  const button = h('button', { class: 'button primary wide', type: 'submit' }, 'Continue with email');
  const form = h('form', { novalidate: true }, h('h2', {}, 'Sign in'), h('p', { class: 'muted' }, 'We send a six-digit code to your address. No password.'), h('label', { class: 'label', for: 'email' }, 'Email'), field, problem, button);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const wanted = field.value.trim().toLowerCase();
    if (!/^[^\s@]+@[^\s@]+$/.test(wanted)) {
      say('Enter your email address.');
      field.focus();
      return;
    }
    say(null);
    try {
      const { pending_id: pending } = await busy(button, () => plain('POST', '/dashboard/auth/otp/request', { email: wanted }));
      if (!signal.aborted) codeStep(card, signal, wanted, pending);
    } catch (error) {
      say(explain(error));
      field.focus();
    }
  });
  fill(card, form);
  say(message);
  field.focus();
}

/** Whether the browser took the cookies. It drops those for HTTPS silently, and signing in would lead back here for ever. */
function keeps() {
  return plain('GET', '/dashboard/me').then(() => true, (error) => error.status !== 401);
}

function codeStep(card, signal, email, pending) {
  const [problem, say] = problemLine();
  let current = pending;
  const field = h('input', { id: 'code', class: 'input code', type: 'text', name: 'code', autocomplete: 'one-time-code', inputmode: 'numeric', pattern: '[0-9]*', maxlength: '32', spellcheck: 'false', 'aria-describedby': 'problem', required: true });
  const button = h('button', { class: 'button primary wide', type: 'submit' }, 'Sign in');
  const back = h('button', { class: 'text-button', type: 'button' }, icon('back', 16), 'Back');
  const again = h('button', { class: 'text-button', type: 'button' });
  const form = h('form', { novalidate: true }, h('h2', {}, 'Check your mail'), h('p', { class: 'muted' }, 'Enter the code that we sent to ', foreign(email, { class: 'strong' }), '.'), h('label', { class: 'label', for: 'code' }, 'Six-digit code'), field, problem, button, h('div', { class: 'login-row' }, back, again));
  const ends = new AbortController();
  const leave = (message) => {
    ends.abort();
    emailStep(card, signal, email, message);
  };
  back.addEventListener('click', () => leave(null));

  let sending = false;
  const submit = async () => {
    if (sending) return;
    if (field.value.length !== DIGITS) {
      say('The code has six digits.');
      field.focus();
      return;
    }
    sending = true;
    say(null);
    try {
      const kept = await busy(button, async () => {
        await plain('POST', '/dashboard/auth/otp/verify', { pending_id: current, code: field.value });
        return keeps();
      });
      if (!kept) return leave(NOT_KEPT);
      ends.abort();
      begun();
      emit('signed-in');
    } catch (error) {
      if (error instanceof ApiError && error.code === 'EXPIRED') return leave('That code has expired. Ask for a new one.');
      say(error.code === 'INVALID_CODE' ? 'That is not the code we sent. Check the digits.' : explain(error));
      field.select();
      field.focus();
    } finally {
      sending = false;
    }
  };
  // Pasted codes come with spaces and dashes; the sixth digit signs in.
  field.addEventListener('input', () => {
    const digits = field.value.replace(/\D/g, '').slice(0, DIGITS);
    if (field.value !== digits) field.value = digits;
    if (digits.length === DIGITS) submit();
    else say(null);
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });

  let left = RESEND_S;
  const tick = () => {
    again.disabled = left > 0;
    again.textContent = left > 0 ? `Send again in ${left} s` : 'Send a new code';
    if (left > 0) left -= 1;
  };
  again.addEventListener('click', async () => {
    try {
      const { pending_id: fresh } = await busy(again, () => plain('POST', '/dashboard/auth/otp/request', { email }));
      current = fresh;
      left = RESEND_S;
      say(null);
      field.value = '';
      field.focus();
    } catch (error) {
      if (error instanceof ApiError && error.retryAfter) left = error.retryAfter;
      say(explain(error));
    }
    tick();
  });
  const timer = setInterval(tick, 1_000);
  for (const end of [signal, ends.signal]) end.addEventListener('abort', () => clearInterval(timer));
  tick();
  fill(card, form);
  field.focus();
}
