//! What few requests need: made when one of them first asks, so that the others do not carry it.

use std::{
    cell::{OnceCell, RefCell},
    collections::VecDeque,
    net::IpAddr,
    rc::Rc,
};

use http::{HeaderName, HeaderValue};

use crate::{
    config::snapshot::Backend,
    exchange::{held::Held, intake::Intake, traced::OpenSpan},
    forward::picks::Notes,
    observe::trace::TraceContext,
    variables::graphql::Operation,
};

/// Everything about an exchange that most of them never have.
#[derive(Default)]
pub(crate) struct Rare {
    /// nginx's `$request_id`: 32 hexadecimal digits.
    generated_id: OnceCell<Box<str>>,
    /// What the plugin `request-id` made or found.
    pub(super) plugin_id: Option<Box<str>>,
    /// Who is connected, when a plugin has found another client behind that address.
    pub(super) connected: Option<IpAddr>,
    /// The request as a GraphQL document; `None` inside when it is none.
    pub(crate) graphql: OnceCell<Option<Operation>>,
    /// What a logger wants to know of the request's body.
    pub(super) intake: Option<Rc<Intake>>,
    /// What was out of the ordinary about its picks.
    pub(crate) picks: Notes,
    /// Where it goes, if that is not where its route says.
    pub(super) backend: Option<Backend>,
    /// Headers that the answer gets, whoever makes it.
    pub(super) answer_headers: Vec<(HeaderName, HeaderValue)>,
    /// Places among the requests under way.
    pub(super) held: Vec<Held>,
    /// The spans that plugins have begun and not told of.
    pub(super) spans: RefCell<VecDeque<OpenSpan>>,
    /// The last of them, if variables tell of it.
    pub(super) trace: Option<TraceContext>,
}

impl Rare {
    /// The id that every request has. Drawn when somebody asks, and the same ever after.
    pub(super) fn generated_id(&self) -> &str {
        self.generated_id.get_or_init(|| {
            let mut digits = uuid::Uuid::encode_buffer();
            let id = uuid::Uuid::new_v4();
            Box::from(&*id.simple().encode_lower(&mut digits))
        })
    }
}
