// Shows /openapi.json as one searchable list. Everything is set as text: nothing in the document can become markup.
'use strict';

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// One line per key, so that a shape can be read like an example.
function shape(schema, all, depth = 0) {
  if (!schema || depth > 6) return '…';
  if (schema.$ref) return shape(all[schema.$ref.split('/').pop()], all, depth);
  const many = schema.oneOf || schema.anyOf;
  if (many && !schema.properties) return many.map((one) => shape(one, all, depth)).join(' | ');
  if (schema.allOf) return schema.allOf.map((one) => shape(one, all, depth)).join(' & ');
  if (schema.enum) return schema.enum.map((word) => JSON.stringify(word)).join(' | ');
  const types = [].concat(schema.type || 'any');
  if (types.includes('array')) return `[${shape(schema.items, all, depth + 1)}]`;
  if (!schema.properties) return types.join(' | ') + (schema.format ? ` (${schema.format})` : '');
  const indent = '  '.repeat(depth + 1);
  const lines = Object.entries(schema.properties).map(([key, value]) => {
    const needed = (schema.required || []).includes(key) ? '' : '?';
    return `${indent}${key}${needed}: ${shape(value, all, depth + 1)}`;
  });
  return `{\n${lines.join('\n')}\n${'  '.repeat(depth)}}`;
}

function content(part) {
  const kinds = Object.entries((part && part.content) || {});
  return kinds.length ? kinds[0] : [null, null];
}

function card(method, path, operation, all) {
  const title = element('summary', '', element('span', 'method', method.toUpperCase()), element('code', '', path));
  title.append(element('span', 'about', operation.summary || ''));
  const inside = element('div');
  const rows = element('table');
  for (const parameter of operation.parameters || []) {
    const about = `${parameter.in}; ${shape(parameter.schema, all)}. ${parameter.description || ''}`;
    rows.append(element('tr', '', element('td', '', element('code', '', parameter.name)), element('td', '', about)));
  }
  if (rows.children.length) inside.append(rows);
  const [kind, body] = content(operation.requestBody);
  if (body) inside.append(element('p', '', `Body: ${kind}`), element('pre', '', shape(body.schema, all)));
  const answers = element('table');
  for (const [status, response] of Object.entries(operation.responses)) {
    const [, answer] = content(response);
    const good = Number(status) < 400;
    const text = good && answer ? element('pre', '', shape(answer.schema, all)) : (response.description || '').replaceAll('`', '');
    answers.append(element('tr', '', element('td', '', status), element('td', '', text)));
  }
  inside.append(answers);
  const made = element('details', '', title, inside);
  made.dataset.text = `${method} ${path} ${operation.operationId} ${JSON.stringify(operation.responses)}`.toLowerCase();
  return made;
}

function render(api) {
  const tags = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const tag = item[method].tags[0];
      if (!tags.has(tag)) tags.set(tag, element('section', '', element('h2', '', tag)));
      tags.get(tag).append(card(method, path, item[method], api.components.schemas));
    }
  }
  document.getElementById('operations').replaceChildren(...tags.values());
}

function find(event) {
  const wanted = event.target.value.trim().toLowerCase();
  for (const section of document.querySelectorAll('section')) {
    const cards = [...section.querySelectorAll('details')];
    for (const one of cards) one.hidden = !one.dataset.text.includes(wanted);
    section.hidden = cards.every((one) => one.hidden);
  }
}

fetch('/openapi.json')
  .then((answer) => answer.json())
  .then(render)
  .catch((error) => document.getElementById('operations').replaceChildren(`The document cannot be read: ${error}`));
document.getElementById('find').addEventListener('input', find);
