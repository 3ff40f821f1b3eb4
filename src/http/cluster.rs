//! What operators see and do of a cluster: nodes, shards, links, drain.
//!
//! Answers are as of the tables, read now; `lag` is what waits here for a link.

use actors::effects::EntityId;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::routes::NodeId;
use schema::ids::ConversationId;
use schema::ownership::{NodeRow, ShardRow};
use serde_json::{Value, json};

use super::extract::Segment;
use super::operator::{Operator, named};
use crate::app::App;
use crate::membership::Membership;
use crate::wire::error::ApiError;

/// `/operator/cluster…`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/operator/cluster", get(status))
        .route("/operator/cluster/shards", get(shards))
        .route("/operator/cluster/places/{id}", get(place))
        .route("/operator/cluster/drain", post(drain))
}

fn owns(node: &NodeRow, shard: &ShardRow) -> bool {
    shard.owner.as_ref().is_some_and(|owner| owner.incarnation == node.incarnation)
}

/// Nodes with their shares and links; on the embedded store there is one node and no more to say.
async fn status(State(app): State<App>, _: Operator) -> Result<Json<Value>, ApiError> {
    let Some(Membership { member, table, links, .. }) = &app.membership else {
        return Ok(Json(json!({"store": "embedded", "nodes": [], "shards": null, "ready": null})));
    };
    let (rows, nodes) = (table.shards().await?, table.nodes().await?);
    let up = links.as_ref().map(|links| links.status()).unwrap_or_default();
    let shown = nodes.iter().map(|node| {
        let share: Vec<&ShardRow> = rows.iter().filter(|row| owns(node, row)).collect();
        let this = member.is_me(node);
        let link = up.iter().find(|(peer, ..)| *peer == NodeId::of(node.incarnation));
        json!({
            "name": node.name,
            "address": node.address,
            "this": this,
            "draining": node.draining,
            "incarnation": format!("{:016x}", node.incarnation),
            "renewals": node.version,
            "shards": share.len(),
            "highest_epoch": share.iter().map(|row| row.epoch).max(),
            "linked": this || link.is_some(),
            "lag": link.map(|(_, _, waiting)| waiting),
        })
    });
    let owned = rows.iter().filter(|row| nodes.iter().any(|node| owns(node, row))).count();
    let total = member.shards();
    let ready = member.ready();
    Ok(Json(json!({
        "store": "cql",
        "nodes": shown.collect::<Vec<_>>(),
        "shards": {"total": total, "owned": owned, "free": (total as usize).saturating_sub(owned)},
        "ready": {"this": ready.is_ok(), "reason": ready.err()},
    })))
}

/// What a shard has to do here: `here` is whether this node hosts it, `admitted` counts this node's own requests to it.
fn load(app: &App) -> impl Fn(u32) -> Value {
    let occupancy = app.domain.occupancy();
    move |shard| {
        let here = occupancy.get(shard as usize);
        json!({
            "here": here.is_some_and(|shard| shard.hosted.is_some()),
            "admitted": here.map_or(0, |shard| shard.admitted),
            "waiting": here.map_or(0, |shard| shard.load.waiting),
            "resident": here.map_or(0, |shard| shard.load.resident),
        })
    }
}

/// Every shard that anybody ever had: epoch, owner, from which epoch on its log is kept, and what it has to do here.
async fn shards(State(app): State<App>, _: Operator) -> Result<Json<Value>, ApiError> {
    let load = load(&app);
    let Some(Membership { table, routes, .. }) = &app.membership else {
        let shown = app.domain.occupancy().into_iter().map(|shard| {
            let number = shard.shard.0;
            json!({"shard": number, "epoch": 0, "owner": null, "log_from": 0, "route_epoch": 0, "load": load(number)})
        });
        return Ok(Json(json!({"shards": shown.collect::<Vec<_>>()})));
    };
    let (rows, nodes) = (table.shards().await?, table.nodes().await?);
    let shown = rows.iter().map(|row| {
        let owner = nodes.iter().find(|node| owns(node, row));
        let route = routes.get(cluster::shard::ShardId(row.shard));
        json!({
            "shard": row.shard,
            "epoch": row.epoch,
            "owner": owner.map(|node| &node.name),
            "log_from": row.recovered,
            "route_epoch": route.epoch,
            "load": load(row.shard),
        })
    });
    Ok(Json(json!({"shards": shown.collect::<Vec<_>>()})))
}

/// Where an agent (by handle) or a conversation (by id) lives: its shard, and the node that owns it.
async fn place(State(app): State<App>, _: Operator, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    let Some(Membership { table, .. }) = &app.membership else { return Err(ApiError::NotFound) };
    let entity = match id.parse::<ConversationId>() {
        Ok(conversation) => EntityId::Conversation(conversation),
        Err(_) => EntityId::Agent(named(&app, &id).await?),
    };
    let shard = app.domain.shard_of(&entity).0;
    let (rows, nodes) = (table.shards().await?, table.nodes().await?);
    let row = rows.iter().find(|row| row.shard == shard);
    let owner = row.and_then(|row| nodes.iter().find(|node| owns(node, row)));
    let (epoch, owner) = (row.map(|row| row.epoch), owner.map(|node| &node.name));
    Ok(Json(json!({"id": id, "shard": shard, "epoch": epoch, "owner": owner})))
}

/// Hands this node's shards over; it goes on serving sockets and requests until it is stopped.
async fn drain(State(app): State<App>, _: Operator) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Some(Membership { member, .. }) = &app.membership else { return Err(ApiError::NotFound) };
    tracing::info!("an operator drains this node");
    member.hand_over().await;
    Ok((StatusCode::OK, Json(json!({"shards_left": member.hosted_here()}))))
}
