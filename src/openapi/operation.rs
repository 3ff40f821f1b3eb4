//! One operation, as the table writes it and as the document shows it.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::openapi::path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AllOfBuilder, KnownFormat, SchemaFormat, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{
    ArrayBuilder, ContentBuilder, HttpMethod, ObjectBuilder, PathItem, Ref, RefOr, Required, Response, ResponseBuilder,
    Schema,
};
use utoipa::{PartialSchema, ToSchema};

use crate::wire::error::{ApiError, Envelope};

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Anybody; a key is not looked at.
    Nobody,
    /// Anybody; a key that is sent has to be valid.
    Optional,
    /// An agent that is not suspended.
    Agent,
    /// An agent in any state.
    AnyAgent,
    /// Whoever has the operator's token.
    Operator,
    /// An owner who is signed in: the browser's session cookie.
    Owner,
    /// An owner whose sign-in may be over: the browser's refresh cookie.
    Refresh,
}

type Schemas = Vec<(String, RefOr<Schema>)>;

/// One operation of the document.
pub struct Op {
    pub method: HttpMethod,
    pub path: &'static str,
    pub id: &'static str,
    tag: &'static str,
    summary: &'static str,
    auth: Auth,
    query: Vec<(&'static str, Schema, &'static str, Required)>,
    body: Option<(&'static str, RefOr<Schema>, Required)>,
    answers: Vec<(u16, &'static str, Option<RefOr<Schema>>)>,
    failures: Vec<ApiError>,
    schemas: Schemas,
}

/// A whole number that 64 bits hold.
pub fn number() -> Schema {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0_usize));
    number.maximum(Some(u64::MAX as usize)).build().into()
}

/// A number of rows; too large ones are cut to the largest page.
fn rows() -> Schema {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1_usize)).build().into()
}

/// Any text.
pub fn text() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).build().into()
}

/// UTC, RFC 3339.
pub fn time() -> Schema {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build().into()
}

/// One of these words.
pub fn one_of<const N: usize>(words: [&'static str; N]) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build().into()
}

impl Op {
    /// An operation for agents that answers nothing yet.
    pub fn new(method: HttpMethod, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        let tag = path.trim_start_matches("/v1").split('/').nth(1).unwrap_or_default();
        let (query, answers, failures, schemas) = Default::default();
        Self { method, path, id, tag, summary, auth: Auth::Agent, query, body: None, answers, failures, schemas }
    }

    /// Who may call.
    pub fn auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }

    /// A query parameter.
    pub fn query(mut self, name: &'static str, schema: Schema, about: &'static str) -> Self {
        self.query.push((name, schema, about, Required::False));
        self
    }

    /// A query parameter that has to be there.
    pub fn needs(mut self, name: &'static str, schema: Schema, about: &'static str) -> Self {
        self.query.push((name, schema, about, Required::True));
        self
    }

    /// `limit` with its default and largest value.
    pub fn limit(self, about: &'static str) -> Self {
        self.query("limit", rows(), about)
    }

    /// `limit` and `offset`.
    pub fn paged(self, about: &'static str) -> Self {
        self.limit(about).query("offset", number(), "Rows to skip")
    }

    fn know<T: ToSchema>(&mut self) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        self.schemas.push((T::name().into_owned(), T::schema()));
        Ref::from_schema_name(T::name()).into()
    }

    /// A JSON body that has to be there.
    pub fn body<T: ToSchema>(mut self) -> Self {
        let schema = self.know::<T>();
        self.body = Some(("application/json", schema, Required::True));
        self
    }

    /// A JSON body that may be left out.
    pub fn optional_body<T: ToSchema>(mut self) -> Self {
        let schema = self.know::<T>();
        self.body = Some(("application/json", schema, Required::False));
        self
    }

    /// A body of bytes.
    pub fn bytes(mut self) -> Self {
        self.body = Some(("application/octet-stream", bytes().into(), Required::True));
        self
    }

    /// A JSON object as answer.
    pub fn answers<T: ToSchema>(mut self, status: u16) -> Self {
        let schema = self.know::<T>();
        self.answers.push((status, "application/json", Some(schema)));
        self
    }

    /// A JSON array as answer.
    pub fn lists<T: ToSchema>(mut self, status: u16) -> Self {
        let rows = ArrayBuilder::new().items(self.know::<T>());
        self.answers.push((status, "application/json", Some(Schema::from(rows.build()).into())));
        self
    }

    /// Something that is no JSON.
    pub fn gives(mut self, status: u16, kind: &'static str) -> Self {
        let schema = if kind.starts_with("text/") || kind.ends_with("ndjson") { text() } else { bytes() };
        self.answers.push((status, kind, Some(schema.into())));
        self
    }

    /// An answer without a body.
    pub fn empty(mut self, status: u16) -> Self {
        self.answers.push((status, "", None));
        self
    }

    /// Failures beside those that every such operation has.
    pub fn fails<const N: usize>(mut self, failures: [ApiError; N]) -> Self {
        self.failures.extend(failures);
        self
    }

    /// The shapes that this operation uses.
    pub fn schemas(&self) -> Schemas {
        let mut schemas = self.schemas.clone();
        schemas.push((Envelope::name().into_owned(), Envelope::schema()));
        schemas
    }

    fn every_failure(&self) -> Vec<ApiError> {
        let mut all = vec![ApiError::form(""), ApiError::Internal, ApiError::Unavailable];
        let wait = || ApiError::RateLimited { retry_after_ms: 0 };
        match self.auth {
            Auth::Nobody => {}
            Auth::AnyAgent | Auth::Operator => all.extend([ApiError::Unauthorized, wait()]),
            Auth::Agent | Auth::Optional => all.extend([ApiError::Unauthorized, ApiError::AgentSuspended, wait()]),
            Auth::Owner | Auth::Refresh => all.push(ApiError::SignedOut),
        }
        if self.path.contains('{') || self.auth == Auth::Operator {
            all.push(ApiError::NotFound); // a segment that does not decode; an operator surface that is closed
        }
        if self.method != HttpMethod::Get {
            all.push(ApiError::PayloadTooLarge { max_bytes: 0 });
        }
        if self.method != HttpMethod::Get && self.path.starts_with("/v1/") {
            all.extend([ApiError::IdempotencyConflict, ApiError::IdempotentInProgress]);
        }
        all.extend(self.failures.iter().cloned());
        all
    }

    /// The operation under its path.
    pub fn item(&self) -> PathItem {
        PathItem::new(self.method.clone(), self.operation())
    }

    fn operation(&self) -> Operation {
        let mut operation =
            OperationBuilder::new().operation_id(Some(self.id)).summary(Some(self.summary)).tag(self.tag);
        for name in self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
            operation = operation.parameter(parameter.required(Required::True).schema(Some(segment())));
        }
        for (name, schema, about, required) in &self.query {
            let parameter = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Query);
            let parameter = parameter.description(Some(*about)).schema(Some(schema.clone()));
            operation = operation.parameter(parameter.required(required.clone()));
        }
        if let Some((kind, schema, required)) = &self.body {
            let content = ContentBuilder::new().schema(Some(schema.clone())).build();
            let body = RequestBodyBuilder::new().content(*kind, content).required(Some(required.clone()));
            operation = operation.request_body(Some(body.build()));
        }
        for (status, response) in self.responses() {
            operation = operation.response(status.to_string(), response);
        }
        self.securities().into_iter().fold(operation, OperationBuilder::security).build()
    }

    fn securities(&self) -> Vec<SecurityRequirement> {
        let scheme = |name: &str| SecurityRequirement::new(name, Vec::<String>::new());
        match self.auth {
            Auth::Nobody => Vec::new(),
            Auth::Optional => vec![SecurityRequirement::default(), scheme("key")],
            Auth::Agent | Auth::AnyAgent => vec![scheme("key")],
            Auth::Operator => vec![scheme("operator")],
            Auth::Owner => vec![scheme("owner")],
            Auth::Refresh => vec![scheme("refresh")],
        }
    }

    fn responses(&self) -> BTreeMap<u16, Response> {
        let reason = |status: u16| {
            StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
        };
        let mut responses = BTreeMap::new();
        for (status, kind, schema) in &self.answers {
            let response = ResponseBuilder::new().description(reason(*status));
            let response = match schema {
                Some(schema) => response.content(*kind, ContentBuilder::new().schema(Some(schema.clone())).build()),
                None => response,
            };
            responses.insert(*status, response.build());
        }
        let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for (status, code) in self.every_failure().iter().map(ApiError::status_and_code) {
            let known = codes.entry(status.as_u16()).or_default();
            if !known.contains(&code) {
                known.push(code);
            }
        }
        for (status, codes) in codes {
            let description = codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
            let code = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes));
            let schema = AllOfBuilder::new()
                .item(Ref::from_schema_name(Envelope::name()))
                .item(ObjectBuilder::new().property("code", code));
            let content = ContentBuilder::new().schema(Some(Schema::from(schema.build()))).build();
            let response = ResponseBuilder::new().description(description).content("application/json", content);
            responses.insert(status, response.build());
        }
        responses
    }
}

fn segment() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).build().into()
}

fn bytes() -> Schema {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build().into()
}
