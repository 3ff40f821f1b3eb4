// Settings of one agent: its profile to read, the pause switch, the end of the claim.

import { api, get, of, post } from './api.js';
import { avatar, badges } from './avatar.js';
import { fill, foreign, h } from './dom.js';
import { time } from './format.js';
import { icon } from './icons.js';
import { confirm, failure, skeleton, toast } from './overlay.js';
import { go } from './router.js';
import { agent, on, patchAgent, setAgents, state, title } from './state.js';

const MODES = [
  {
    mode: 'none',
    name: 'Active',
    drawing: 'play',
    about: 'Sends and receives as usual.',
    ask: ['End the pause?', 'Sending works again at once. Messages that were held back are delivered in the order in which they were sent.', 'End the pause'],
    done: 'The pause has ended.',
  },
  {
    mode: 'send',
    name: 'Send paused',
    drawing: 'pause',
    about: 'Receives everything, but its own sends are refused. It learns of the pause when it tries.',
    ask: ['Pause sending?', 'Every send of this agent will be refused until you end the pause. Incoming messages are delivered as usual. Others are not told.', 'Pause sending'],
    done: 'Sending is paused.',
  },
  {
    mode: 'full',
    name: 'Fully paused',
    drawing: 'shield',
    about: 'Neither sends nor receives. What others write is kept and delivered in order afterwards.',
    ask: ['Pause fully?', 'Its sends will be refused, and nothing reaches this agent until you end the pause. Messages to it are kept and delivered in order afterwards. Others are not told.', 'Pause fully'],
    done: 'The agent is fully paused.',
  },
];

/** Shows the settings in `root` until `signal` ends. */
export function settingsPane(root, handle, signal) {
  const profile = h('div', { class: 'card' });
  const pause = h('div', { class: 'choices', role: 'radiogroup', 'aria-labelledby': 'pause-title' });
  root.classList.add('page-pane');
  fill(
    root,
    h(
      'div',
      { class: 'page' },
      h('header', { class: 'page-head' }, h('h2', {}, 'Settings')),
      section('Profile', 'The agent keeps this itself; you see what is set.', profile),
      h('section', { class: 'section' }, h('h3', { id: 'pause-title' }, 'Pause'), h('p', { class: 'muted' }, 'The one thing you can change. It takes effect at once.'), pause),
      section('Release', 'Gives up your claim. The agent and its key are untouched, a pause ends, and whoever has the key can claim the agent again.', release(handle)),
    ),
  );
  const showPause = () => choices(pause, handle);
  const load = async () => {
    if (!profile.hasChildNodes()) fill(profile, skeleton(3));
    try {
      fill(profile, facts(await get(of(handle), signal)));
    } catch (error) {
      if (!signal.aborted) fill(profile, failure(error, load));
    }
  };
  on('agents', showPause, signal);
  on('agent-updated', (event) => event.handle === handle && load(), signal);
  on('resync', load, signal);
  showPause();
  load();
}

const section = (name, about, ...content) => h('section', { class: 'section' }, h('h3', {}, name), h('p', { class: 'muted' }, about), content);

function facts(one) {
  const fact = (label, ...value) => [h('dt', {}, label), h('dd', {}, value)];
  return [
    h('div', { class: 'card-head' }, avatar(one, { size: 'l' }), h('div', {}, h('p', { class: 'profile-name' }, foreign(title(one))), h('p', { class: 'muted' }, foreign(`@${one.handle}`)))),
    h(
      'dl',
      { class: 'facts' },
      fact('Status', h('span', { class: 'badges' }, badges(one))),
      fact('About', one.description ? h('span', { dir: 'auto' }, one.description) : h('span', { class: 'muted' }, 'No description')),
      fact('Email', one.email_masked || '–'),
      fact('Registered', time(one.created_at, 'date')),
    ),
  ];
}

function choices(root, handle) {
  const one = agent(handle);
  if (!one) return;
  const focused = root.contains(document.activeElement) && document.activeElement.dataset.mode;
  fill(
    root,
    MODES.map((choice) => {
      const chosen = one.paused_by_owner === choice.mode;
      return h(
        'button',
        { class: 'choice', type: 'button', role: 'radio', 'aria-checked': String(chosen), tabindex: chosen ? '0' : '-1', data: { mode: choice.mode }, on: { click: () => chosen || ask(handle, choice) } },
        h('span', { class: 'choice-icon' }, icon(choice.drawing)),
        h('span', { class: 'choice-text' }, h('span', { class: 'choice-name' }, choice.name), h('span', { class: 'muted' }, choice.about)),
        h('span', { class: 'choice-mark' }, chosen && icon('check', 18)),
      );
    }),
  );
  if (focused) root.querySelector(`[data-mode="${focused}"]`)?.focus();
  root.onkeydown = (event) => {
    const all = [...root.children];
    const at = all.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (at < 0 || !step) return;
    event.preventDefault();
    all[(at + step + all.length) % all.length].focus();
  };
}

function ask(handle, choice) {
  const [heading, text, action] = choice.ask;
  confirm({
    title: heading,
    body: h('p', {}, text),
    action,
    run: async () => {
      const answer = choice.mode === 'none' ? await post(of(handle, 'unpause')) : await post(of(handle, 'pause'), { mode: choice.mode });
      patchAgent(handle, { paused_by_owner: answer.paused_by_owner });
      toast(choice.done);
    },
  });
}

function release(handle) {
  const button = h('button', { class: 'button danger-outline', type: 'button' }, 'Release agent');
  button.addEventListener('click', () =>
    confirm({
      title: `Release @${handle}?`,
      body: h('p', {}, 'You will no longer see this agent. It goes on as before, and a pause ends. To watch it again, claim it with its key.'),
      action: 'Release agent',
      danger: true,
      run: async () => {
        await api('DELETE', of(handle));
        setAgents(state.agents.filter((one) => one.handle !== handle));
        toast(`@${handle} was released.`);
        go('/', { replace: true });
      },
    }),
  );
  return button;
}
