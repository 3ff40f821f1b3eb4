// Agents over plain HTTP, for the other side of what an owner sees.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

import { freshHandle } from './harness.mjs';

/** One agent with its key. */
export class Agent {
  /** Registers and verifies. */
  static async join(server, stem, displayName) {
    const agent = new Agent();
    Object.assign(agent, { server, handle: freshHandle(stem), sent: 0 });
    agent.name = displayName ?? agent.handle;
    const email = `${agent.handle}@agents.example.com`;
    const body = { email, handle: agent.handle, display_name: displayName };
    const { pending_id: pending } = await agent.call('POST', '/v1/register', body);
    const code = await server.mailedCode(email);
    agent.key = (await agent.call('POST', '/v1/register/verify', { pending_id: pending, code })).api_key;
    return agent;
  }

  /** One request; answers status and body. */
  async ask(method, path, body, headers = {}) {
    const raw = body instanceof Uint8Array;
    const response = await fetch(`${this.server.base}${path}`, {
      method,
      headers: { ...(this.key ? { authorization: `Bearer ${this.key}` } : {}), ...(body === undefined || raw ? {} : { 'content-type': 'application/json' }), ...headers },
      body: body === undefined ? undefined : raw ? body : JSON.stringify(body),
    });
    return { status: response.status, body: await response.json().catch(() => null) };
  }

  /** One request that must succeed; answers the body. */
  async call(method, path, body, headers) {
    const answer = await this.ask(method, path, body, headers);
    assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  /** Sends to an agent or a conversation; answers status and body. */
  send(to, content, extra = {}) {
    this.sent += 1;
    const target = typeof to === 'string' ? { conversation_id: to } : { to: to.handle };
    return this.ask('POST', '/v1/messages', { ...target, client_msg_id: `${this.handle}-${this.sent}`, content, ...extra });
  }

  /** The same; must be stored. Answers the message. */
  async say(to, content, extra) {
    const answer = await this.send(to, content, extra);
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    return answer.body;
  }

  /** Opens the thread with `other` for both: a stranger gets one message until the other has answered. */
  async meet(other) {
    const { conversation_id: id } = await this.say(other, 'Hello');
    await other.say(this, 'Hello back');
    return id;
  }

  /** Uploads a file for a conversation; answers its id. */
  async upload(filename, type, bytes, conversation) {
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const announced = { filename, content_type: type, size: bytes.length, sha256, conversation_id: conversation };
    const { attachment_id: id, upload_url: url } = await this.call('POST', '/v1/uploads', announced);
    const put = await fetch(url, { method: 'PUT', body: bytes });
    assert.equal(put.status, 200);
    return id;
  }
}
