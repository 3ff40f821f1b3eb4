//! The table of tools: what a host shows of each, and the request of the agent API that it is.
//!
//! T1  A tool is one route of the contract; no rule is decided here. What is wrong with an argument, the route says.
//! T2  Schemas are flat objects without alternatives at the top: some hosts refuse others.
//! T3  Names carry the product's name, because some hosts throw the tools of all servers into one bag.

mod groups;
mod messages;
mod people;

use std::sync::LazyLock;

use axum::http::Method;
use rmcp::model::{JsonObject, Tool as Shown, ToolAnnotations};
use serde_json::{Value, json};

/// One tool.
pub struct Tool {
    /// Unique.
    pub name: &'static str,
    title: &'static str,
    description: &'static str,
    /// Of the request.
    pub method: Method,
    /// Of the request; `{...}` segments are filled from arguments of the same name.
    pub path: &'static str,
    /// What it is made of.
    pub args: Vec<Arg>,
    /// An answer that is an array is given as an object with this key.
    pub rows: Option<&'static str>,
    changes: Changes,
    reaches_others: bool,
}

/// What a call does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    Nothing,
    /// Adds something each time.
    Adds,
    /// A repeat changes nothing more.
    Settles,
    /// The same, and something is gone afterwards.
    Removes,
}

/// One argument.
pub struct Arg {
    /// As hosts see it.
    pub name: &'static str,
    /// Where it goes.
    pub place: Place,
    /// What it is filled with.
    pub filling: Filling,
    schema: Value,
}

/// Where an argument goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A segment.
    Path,
    /// A name of the query.
    Query,
    /// A key of the body; dots lead into objects.
    Body(&'static str),
}

/// What an argument is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// The caller has to say.
    Required,
    /// The caller may say.
    Optional,
    /// The caller may say; a fresh one if it does not.
    Fresh,
    /// A number of rows: as many if the caller does not say, and at most so many.
    Rows { usual: u64, most: u64 },
    /// Always this; not shown.
    Always(&'static str),
    /// Always the caller's own handle; not shown.
    OwnHandle,
}

impl Filling {
    /// Whether hosts see the argument.
    pub fn shown(self) -> bool {
        !matches!(self, Self::Always(_) | Self::OwnHandle)
    }
}

impl Tool {
    fn new(method: Method, path: &'static str, name: &'static str, title: &'static str) -> Self {
        let changes = match method {
            Method::GET => Changes::Nothing,
            Method::DELETE => Changes::Removes,
            Method::PUT | Method::PATCH => Changes::Settles,
            _ => Changes::Adds,
        };
        let (description, args, rows, reaches_others) = ("", Vec::new(), None, false);
        Self { name, title, description, method, path, args, rows, changes, reaches_others }
    }

    /// When to use it, what comes back, what may go wrong.
    fn about(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    fn arg(mut self, arg: Arg) -> Self {
        self.args.push(arg);
        self
    }

    fn args(mut self, args: impl IntoIterator<Item = Arg>) -> Self {
        self.args.extend(args);
        self
    }

    fn rows(mut self, key: &'static str) -> Self {
        self.rows = Some(key);
        self
    }

    fn changes(mut self, changes: Changes) -> Self {
        self.changes = changes;
        self
    }

    /// Other agents notice.
    fn reaches_others(mut self) -> Self {
        self.reaches_others = true;
        self
    }

    /// As hosts see it.
    fn shown(&self) -> Shown {
        let annotations = ToolAnnotations::with_title(self.title)
            .read_only(self.changes == Changes::Nothing)
            .destructive(self.changes == Changes::Removes)
            .idempotent(self.changes != Changes::Adds)
            .open_world(self.reaches_others);
        Shown::new(self.name, self.description, self.schema()).with_title(self.title).with_annotations(annotations)
    }

    fn schema(&self) -> JsonObject {
        let shown = || self.args.iter().filter(|arg| arg.filling.shown());
        let properties: JsonObject = shown().map(|arg| (arg.name.to_owned(), arg.schema.clone())).collect();
        let required = shown().filter(|arg| arg.filling == Filling::Required).map(|arg| json!(arg.name)).collect();
        JsonObject::from_iter([
            ("type".to_owned(), json!("object")),
            ("properties".to_owned(), Value::Object(properties)),
            ("required".to_owned(), Value::Array(required)),
            ("additionalProperties".to_owned(), json!(false)),
        ])
    }
}

impl Arg {
    fn new(name: &'static str, mut schema: Value, description: &str) -> Self {
        schema["description"] = json!(description);
        Self { name, place: Place::Body(name), filling: Filling::Optional, schema }
    }

    fn text(name: &'static str, description: &str) -> Self {
        Self::new(name, json!({"type": "string"}), description)
    }

    /// Text of at most `most` characters.
    fn short(name: &'static str, most: u64, description: &str) -> Self {
        Self::new(name, json!({"type": "string", "maxLength": most}), description)
    }

    /// The same, and `null` clears it.
    fn clearable(name: &'static str, most: u64, description: &str) -> Self {
        Self::new(name, json!({"type": ["string", "null"], "maxLength": most}), description)
    }

    fn choice(name: &'static str, choices: &[&str], description: &str) -> Self {
        Self::new(name, json!({"type": "string", "enum": choices}), description)
    }

    fn number(name: &'static str, description: &str) -> Self {
        Self::new(name, json!({"type": "integer", "minimum": 0}), description)
    }

    fn object(name: &'static str, description: &str) -> Self {
        Self::new(name, json!({"type": "object"}), description)
    }

    fn handles(name: &'static str, (least, most): (u64, u64), description: &str) -> Self {
        let schema = json!({"type": "array", "items": {"type": "string"}, "minItems": least, "maxItems": most});
        Self::new(name, schema, description)
    }

    /// An agent that the path names.
    fn handle(description: &str) -> Self {
        Self::text("handle", description).required().in_path()
    }

    /// A resource that the path names.
    fn id(description: &str) -> Self {
        Self::text("id", description).required().in_path()
    }

    /// Rows of a page.
    fn limit(usual: u64, most: u64) -> Self {
        let schema = json!({"type": "integer", "minimum": 1, "maximum": most, "default": usual});
        Self::new("limit", schema, "Most rows").in_query().filled(Filling::Rows { usual, most })
    }

    fn offset() -> Self {
        Self::number("offset", "Rows to skip; `total` in the answer says how many there are").in_query()
    }

    fn own_handle() -> Self {
        Self::text("handle", "").in_path().filled(Filling::OwnHandle)
    }

    fn always(name: &'static str, value: &'static str) -> Self {
        Self::text(name, "").filled(Filling::Always(value))
    }

    fn required(self) -> Self {
        self.filled(Filling::Required)
    }

    fn filled(mut self, filling: Filling) -> Self {
        self.filling = filling;
        self
    }

    fn in_path(mut self) -> Self {
        self.place = Place::Path;
        self
    }

    fn in_query(mut self) -> Self {
        self.place = Place::Query;
        self
    }

    fn at(mut self, key: &'static str) -> Self {
        self.place = Place::Body(key);
        self
    }
}

/// Every tool, as the request and as hosts see it; made once, as it never changes.
static TOOLS: LazyLock<Vec<(Tool, Shown)>> = LazyLock::new(|| {
    let tools = [messages::tools(), people::tools(), people::quiet(), groups::tools(), groups::invites()];
    tools.into_iter().flatten().map(|tool| (tool.shown(), tool)).map(|(shown, tool)| (tool, shown)).collect()
});

/// The tool of this name.
pub fn named(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().map(|(tool, _)| tool).find(|tool| tool.name == name)
}

/// What hosts see of the tool of this name.
pub fn shown(name: &str) -> Option<Shown> {
    TOOLS.iter().find(|(tool, _)| tool.name == name).map(|(_, shown)| shown.clone())
}

/// What hosts see of every tool.
pub fn all_shown() -> Vec<Shown> {
    TOOLS.iter().map(|(_, shown)| shown.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The contract's list of routes, one JSON object per line.
    const CONTRACT: &str = include_str!("../../../tests/contract/rest.jsonl");

    fn segments(path: &str) -> BTreeSet<&str> {
        path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect()
    }

    #[test]
    fn every_tool_is_a_route_of_the_contract() {
        let routes: Vec<Value> = CONTRACT.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (tool, _) in TOOLS.iter() {
            let known = routes.iter().any(|route| route["m"] == tool.method.as_str() && route["p"] == tool.path);
            assert!(known, "{}: no route {} {}", tool.name, tool.method, tool.path);
            let in_path: BTreeSet<_> =
                tool.args.iter().filter(|arg| arg.place == Place::Path).map(|arg| arg.name).collect();
            assert_eq!(in_path, segments(tool.path), "{}", tool.name);
            let bodiless = tool.args.iter().all(|arg| !matches!(arg.place, Place::Body(_)));
            assert!(bodiless || tool.method != Method::GET, "{}: GET has no body", tool.name);
            let array = routes
                .iter()
                .any(|route| route["m"] == tool.method.as_str() && route["p"] == tool.path && route["body"] == "array");
            assert_eq!(tool.rows.is_some(), array, "{}: arrays, and only arrays, are wrapped", tool.name);
        }
    }

    #[test]
    fn names_are_unique_and_short_enough_for_every_host() {
        let names: BTreeSet<_> = TOOLS.iter().map(|(tool, _)| tool.name).collect();
        assert_eq!(names.len(), TOOLS.len());
        for name in names {
            let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(plain && name.starts_with("agentchat_") && name.len() <= 48, "{name}");
            assert!(named(name).is_some() && shown(name).is_some());
        }
        assert!(named("agentchat_nothing").is_none());
    }

    /// The keywords that the table uses, each of the kind that JSON Schema wants.
    fn check_schema(tool: &str, schema: &Value) {
        const TYPES: [&str; 5] = ["object", "array", "string", "integer", "null"];
        let known = |kind: &Value| kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
        for (keyword, value) in schema.as_object().unwrap() {
            let valid = match keyword.as_str() {
                "type" => {
                    known(value) || value.as_array().is_some_and(|kinds| kinds.len() > 1 && kinds.iter().all(known))
                }
                "description" => value.is_string(),
                "enum" | "required" => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
                "additionalProperties" => value.is_boolean(),
                "maxLength" | "minItems" | "maxItems" | "minimum" | "maximum" | "default" => value.is_u64(),
                "items" => known(&value["type"]),
                "properties" => {
                    value.as_object().unwrap().values().for_each(|inner| check_schema(tool, inner));
                    true
                }
                _ => false,
            };
            assert!(valid, "{tool}: {keyword}: {value}");
        }
    }

    #[test]
    fn every_schema_is_valid_and_teaches() {
        for shown in all_shown() {
            let schema = shown.schema_as_json_value();
            assert_eq!(schema["type"], "object", "{}", shown.name);
            check_schema(shown.name.as_ref(), &schema);
            assert!(["oneOf", "anyOf", "allOf"].iter().all(|rule| schema.get(*rule).is_none()), "{}", shown.name);
            let properties = schema["properties"].as_object().unwrap();
            for (name, property) in properties {
                let text = property["description"].as_str().unwrap();
                assert!(!text.is_empty(), "{}: {name} is not described", shown.name);
            }
            for name in schema["required"].as_array().unwrap() {
                assert!(properties.contains_key(name.as_str().unwrap()), "{}: {name}", shown.name);
            }
            assert!(shown.description.as_deref().is_some_and(|text| text.len() > 20), "{}", shown.name);
        }
    }

    #[test]
    fn annotations_follow_what_a_call_does() {
        for (tool, shown) in TOOLS.iter() {
            let hints = shown.annotations.as_ref().unwrap();
            assert_eq!(hints.read_only_hint, Some(tool.method == Method::GET || tool.path.ends_with("/batch")));
            assert_eq!(hints.destructive_hint, Some(tool.changes == Changes::Removes));
        }
        let hints = |name: &str| shown(name).unwrap().annotations.unwrap();
        let send = hints("agentchat_send_message");
        assert_eq!((send.idempotent_hint, send.open_world_hint), (Some(false), Some(true)));
        assert_eq!(hints("agentchat_report_agent").destructive_hint, Some(true));
    }
}
