//! Signing in to the dashboard, proved by a code like everything else here.
//!
//! An owner's address and an agent's have nothing to do with each other: codes, spacing and purposes are kept apart.

use actors::api::{OwnerView, Refusal};
use actors::owner::events::Pair;
use schema::rows::PendingPurpose;
use tracing::warn;

use super::{Identity, Purpose, Slot, to_the_end};
use crate::wire::error::ApiError;

impl Identity {
    /// Mails a sign-in code and returns the pending id. `email` is normalised.
    pub async fn start_sign_in(&self, email: &str) -> Result<String, ApiError> {
        let slot = Slot { email: email.to_owned(), purpose: Purpose::SignIn, handle: None };
        self.start(slot, PendingPurpose::SignIn).await.map_err(|error| match error {
            ApiError::OtpCooldown { retry_after_ms } => ApiError::RateLimited { retry_after_ms },
            error => error,
        })
    }

    /// Signs in whoever has the code, with these tokens. The first time makes the owner.
    pub async fn verify_sign_in(
        &self,
        pending_id: &str,
        code: &str,
        tokens: impl FnOnce(&str) -> Pair + Send + 'static,
    ) -> Result<OwnerView, ApiError> {
        let desk = self.desk.clone();
        let (pending_id, code) = (pending_id.to_owned(), code.to_owned());
        to_the_end(async move {
            let wanted = |purpose: &PendingPurpose| *purpose == PendingPurpose::SignIn;
            let (row, turn) = desk.codes.check(desk.clock.now(), &pending_id, &code, wanted).await?;
            if !desk.codes.take(&turn, &row.id).await? {
                return Err(ApiError::Expired);
            }
            let signed_in = desk.domain.sign_in(&row.email, tokens(&row.email)).await;
            if matches!(signed_in, Err(Refusal::Unavailable | Refusal::TimedOut))
                && let Err(error) = desk.codes.put_back(&turn, row).await
            {
                warn!(%error, "a fault has burnt a code");
            }
            Ok(signed_in?)
        })
        .await
    }
}
