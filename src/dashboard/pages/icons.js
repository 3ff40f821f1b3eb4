// Line drawings on a grid of 24, in the colour of the text beside them.

import { svg } from './dom.js';

const PATHS = {
  activity: 'M3 12h4l3-8 4 16 3-8h4',
  back: 'M15 5l-7 7 7 7',
  blocks: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM5.7 5.7l12.6 12.6',
  book: 'M5 4.5A1.5 1.5 0 0 1 6.5 3H19v15H6.5A1.5 1.5 0 0 0 5 19.5zM5 19.5A1.5 1.5 0 0 0 6.5 21H19v-3',
  chat: 'M21 12a8 8 0 0 1-8 8H4l2-3.2A8 8 0 1 1 21 12z',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  checks: 'M2.5 12.5L7 17l8.5-9M11.5 16l1 1L21 8',
  chevron: 'M6 9.5l6 6 6-6',
  close: 'M6 6l12 12M18 6L6 18',
  code: 'M8.5 7L3.5 12l5 5M15.5 7l5 5-5 5',
  contacts: 'M9 11.5a3.75 3.75 0 1 0 0-7.5 3.75 3.75 0 0 0 0 7.5zM2.5 20a6.5 6.5 0 0 1 13 0M16 4.3a3.75 3.75 0 0 1 0 7M18 14.2a6.5 6.5 0 0 1 3.5 5.8',
  copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
  download: 'M12 4v11M7 10.5l5 5 5-5M5 20h14',
  file: 'M6 3h8l5 5v13H6zM14 3v5h5',
  flag: 'M5 21V4h11l-1.5 4L16 12H5',
  gear: 'M12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM10.4 5.1L10.5 2.7L13.5 2.7L13.6 5.1L15.7 6L17.5 4.4L19.6 6.5L18 8.3L18.9 10.4L21.3 10.5L21.3 13.5L18.9 13.6L18 15.7L19.6 17.5L17.5 19.6L15.7 18L13.6 18.9L13.5 21.3L10.5 21.3L10.4 18.9L8.3 18L6.5 19.6L4.4 17.5L6 15.7L5.1 13.6L2.7 13.5L2.7 10.5L5.1 10.4L6 8.3L4.4 6.5L6.5 4.4L8.3 6z',
  group: 'M12 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM5 20a7 7 0 0 1 14 0M4.5 12.5a2.5 2.5 0 1 1 1.2-4.7M19.5 12.5a2.5 2.5 0 1 0-1.2-4.7M1.5 18.5a4.5 4.5 0 0 1 3-4M22.5 18.5a4.5 4.5 0 0 0-3-4',
  info: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 11v5.5M12 7.5v.1',
  key: 'M8 20a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM11.2 12.3L20 3.5M16.5 7l3 3M14 9.5l2 2',
  menu: 'M4 7h16M4 12h16M4 17h16',
  monitor: 'M3 4.5h18v12H3zM8.5 20.5h7M12 16.5v4',
  moon: 'M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z',
  more: 'M5.5 12.6a.6.6 0 1 0 0-1.2.6.6 0 0 0 0 1.2zM12 12.6a.6.6 0 1 0 0-1.2.6.6 0 0 0 0 1.2zM18.5 12.6a.6.6 0 1 0 0-1.2.6.6 0 0 0 0 1.2z',
  panel: 'M3.5 4.5h17v15h-17zM9.5 4.5v15',
  pause: 'M8.5 5v14M15.5 5v14',
  play: 'M7 4.5v15l12-7.5z',
  plus: 'M12 5v14M5 12h14',
  received: 'M18 6L6.5 17.5M6.5 9v8.5H15',
  search: 'M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l4.5 4.5',
  sent: 'M6 18L17.5 6.5M9 6.5h8.5V15',
  shield: 'M12 3l8 3v6c0 4.5-3.2 7.7-8 9-4.8-1.3-8-4.5-8-9V6z',
  signout: 'M14 4H5v16h9M10 12h11M17.5 8.5L21 12l-3.5 3.5',
  sun: 'M12 16.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM12 2v2M12 20v2M2 12h2M20 12h2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4',
  user: 'M12 11.5a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20.5a7.5 7.5 0 0 1 15 0',
  warning: 'M12 4L2.5 20h19zM12 10v4.5M12 17v.1',
};

/** A drawing. It is decoration: what it means stands beside it, or in the label of its button. */
export function icon(name, size = 20) {
  const path = svg('path', { d: PATHS[name] });
  return svg('svg', { class: 'icon', viewBox: '0 0 24 24', width: size, height: size, 'aria-hidden': 'true' }, path);
}

/** The mark of the product. */
export function mark(size = 32) {
  return svg(
    'svg',
    { class: 'mark', viewBox: '0 0 32 32', width: size, height: size, 'aria-hidden': 'true' },
    svg('rect', { width: 32, height: 32, rx: 9 }),
    svg('path', { d: 'M8 11.5A3.5 3.5 0 0 1 11.5 8h9a3.5 3.5 0 0 1 3.5 3.5v6a3.5 3.5 0 0 1-3.5 3.5H16l-4.6 3.7a.55.55 0 0 1-.9-.43V21A3.5 3.5 0 0 1 8 17.5z' }),
    svg('circle', { cx: 13, cy: 14.5, r: 1.5 }),
    svg('circle', { cx: 19, cy: 14.5, r: 1.5 }),
  );
}
