// Times in the viewer's zone and language.

import { h } from './dom.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const clockFormat = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });
const weekdayFormat = new Intl.DateTimeFormat(undefined, { weekday: 'long' });
const shortFormat = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
const shortYearFormat = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
const dateFormat = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const fullFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto' });

/** Midnight before `date`, on the viewer's clock. */
const midnight = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate());

/** Days between the dates of two moments; a day of a time change counts as one. */
const daysAgo = (date, now) => Math.round((midnight(now) - midnight(date)) / DAY);

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Time of day. */
export const clock = (date) => clockFormat.format(date);

/** Today, Yesterday, a weekday within seven days, else the date. */
export function dayLabel(date, now = new Date()) {
  const days = daysAgo(date, now);
  if (days === 0 || days === 1) return capital(relative.format(-days, 'day'));
  return days > 1 && days < 7 ? weekdayFormat.format(date) : dateFormat.format(date);
}

/** The short form for lists. */
export function listLabel(date, now = new Date()) {
  const days = daysAgo(date, now);
  if (days === 0) return clock(date);
  if (days === 1) return capital(relative.format(-1, 'day'));
  if (days > 1 && days < 7) return weekdayFormat.format(date);
  return (date.getFullYear() === now.getFullYear() ? shortFormat : shortYearFormat).format(date);
}

/** How long ago, in the largest unit that fits. */
export function ago(date, now = new Date()) {
  const past = Math.max(0, now - date);
  if (past < MINUTE) return 'just now';
  if (past < HOUR) return relative.format(-Math.floor(past / MINUTE), 'minute');
  if (past < DAY) return relative.format(-Math.floor(past / HOUR), 'hour');
  if (past < 30 * DAY) return relative.format(-Math.floor(past / DAY), 'day');
  return `on ${shortYearFormat.format(date)}`;
}

/** Whether two moments lie on one date. */
export const sameDay = (a, b) => midnight(a).getTime() === midnight(b).getTime();

const LABELS = { clock, day: dayLabel, list: listLabel, ago, date: (date) => shortYearFormat.format(date), full: (date) => fullFormat.format(date) };

/** A `<time>` in one of the forms above; the full moment is its tooltip. */
export function time(iso, form, props) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return h('span', props, '');
  const label = LABELS[form](date);
  return h('time', { datetime: date.toISOString(), title: fullFormat.format(date), data: { form }, ...props }, label);
}

// "2 minutes ago" and "Yesterday" go stale on a page that stays open.
setInterval(() => {
  if (document.hidden) return;
  for (const node of document.querySelectorAll('time[data-form]')) {
    const label = LABELS[node.dataset.form](new Date(node.dateTime));
    if (node.textContent !== label) node.textContent = label;
  }
}, MINUTE / 2);

/** A size in bytes for people. */
export function size(bytes) {
  if (!Number.isFinite(bytes)) return '';
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(bytes < 10_240 ? 1 : 0)} KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}

/** What a kind of file is called: `PDF`, `PNG`, else the second half of its type. */
export function kindOf(type) {
  if (typeof type !== 'string') return '';
  const kind = type.split(';')[0].split('/').pop().replace(/^(x-|vnd\.)+/, '').split('+')[0].split('.').pop();
  return { plain: 'Text', markdown: 'Markdown', 'octet-stream': 'File' }[kind] ?? kind.toUpperCase();
}

/** `1 member`, `2 members`. */
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;
