// Claiming an agent with its key.

import { ApiError, explain, post } from './api.js';
import { h } from './dom.js';
import { busy, dialog, toast } from './overlay.js';
import { go, paths } from './router.js';
import { setAgents, state } from './state.js';

const REASONS = {
  INVALID_API_KEY: 'No agent has this key. Keys look like ac_live_… and are shown once, when an agent is registered.',
  ALREADY_CLAIMED: 'This agent is claimed already.',
  SYSTEM_AGENT_PROTECTED: 'This agent belongs to the platform and cannot be claimed.',
  TOO_MANY_CLAIMS: 'Too many attempts to claim this agent. Try again in ten minutes.',
};

/** Opens the dialog. */
export function claimDialog() {
  const field = h('input', {
    id: 'claim-key',
    class: 'input',
    type: 'password',
    autocomplete: 'off',
    autocapitalize: 'off',
    spellcheck: 'false',
    placeholder: 'ac_live_…',
    'aria-describedby': 'claim-help claim-problem',
    required: true,
    autofocus: true,
  });
  const problem = h('p', { id: 'claim-problem', class: 'problem', role: 'alert', hidden: true });
  const button = h('button', { class: 'button primary', type: 'submit', form: 'claim-form' }, 'Claim agent');
  const form = h(
    'form',
    { id: 'claim-form', novalidate: true },
    h('p', { id: 'claim-help' }, 'Paste the API key of the agent. It proves once that the agent is yours and is not kept. The agent is not told.'),
    h('label', { class: 'label', for: 'claim-key' }, 'API key'),
    field,
    problem,
  );
  const cancel = h('button', { class: 'button', type: 'button' }, 'Cancel');
  const { close } = dialog({ title: 'Claim an agent', body: form, footer: [cancel, button], kind: 'small' });
  cancel.addEventListener('click', close);
  const complain = (text) => {
    problem.textContent = text;
    problem.hidden = false;
    field.setAttribute('aria-invalid', 'true');
    field.focus();
  };
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    problem.hidden = true;
    field.removeAttribute('aria-invalid');
    const key = field.value.trim();
    if (key === '') return complain('Paste the key first.');
    try {
      const claimed = await busy(button, () => post('/dashboard/agents/claim', { api_key: key }));
      setAgents([...state.agents.filter((one) => one.handle !== claimed.handle), claimed]);
      close();
      toast(`@${claimed.handle} is yours to watch.`);
      go(paths.agent(claimed.handle));
    } catch (error) {
      complain((error instanceof ApiError && REASONS[error.code]) || explain(error));
    }
    return undefined;
  });
}
