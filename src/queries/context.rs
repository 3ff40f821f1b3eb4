//! What messages say beside themselves: names of authors, name and size of groups, as of now.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use actors::api::Profile;
use schema::ids::{AgentId, ConversationId};
use schema::rows::MessageRow;

use crate::app::{App, GroupName, Groups, Profiles};
use crate::wire::error::ApiError;
use crate::wire::message::About;

/// Whose message it is, and where it stands.
pub type Place = (AgentId, ConversationId);

/// The place of a message.
pub fn place(message: &MessageRow) -> Place {
    (message.sender, message.conversation)
}

/// Authors and groups of one page of messages.
#[derive(Debug, Default)]
pub struct Context {
    authors: HashMap<AgentId, Arc<Profile>>,
    groups: HashMap<ConversationId, Arc<GroupName>>,
}

impl Context {
    /// Reads what these messages need, each thing once.
    pub async fn read(app: &App, places: Vec<Place>) -> Result<Self, ApiError> {
        Self::with(&app.profiles, &app.groups, places).await
    }

    /// The same from the two caches themselves.
    pub async fn with(profiles: &Profiles, groups: &Groups, places: Vec<Place>) -> Result<Self, ApiError> {
        let mut this = Self::default();
        for (author, conversation) in places {
            if let Entry::Vacant(place) = this.authors.entry(author) {
                place.insert(profiles.get(author).await?);
            }
            if let Entry::Vacant(place) = this.groups.entry(conversation)
                && let Some(group) = groups.get(conversation).await?
            {
                place.insert(group);
            }
        }
        Ok(this)
    }

    /// What `message` says beside itself.
    pub fn about(&self, message: &MessageRow) -> About<'_> {
        let author = self.authors.get(&message.sender).map(Arc::as_ref);
        about(author, self.groups.get(&message.conversation).map(Arc::as_ref))
    }
}

/// What a message of this author, in this group if it is one, says beside itself.
pub fn about<'a>(author: Option<&'a Profile>, group: Option<&'a GroupName>) -> About<'a> {
    About {
        display_name: author.and_then(|author| author.display_name.as_deref()),
        is_system: author.is_some_and(|author| author.is_system),
        group: group.map(|group| (group.name.as_str(), group.members)),
    }
}
