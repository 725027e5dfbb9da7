//! Credentials for S3 by the AWS SDK's default chain: environment, profiles of the usual files, web identity, container,
//! instance role. object_store does not read profiles itself, and the SDK is here for Delta anyway.

use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, OnceCell};

use crate::config::S3Config;
use crate::failure;

/// How long before they expire credentials are renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);

/// The SDK's credentials, cached until they are about to expire.
#[derive(Debug)]
pub struct SdkCredentials {
    /// `s3.profile`, which takes precedence over the chain.
    profile: Option<String>,
    provider: OnceCell<SharedCredentialsProvider>,
    cached: Mutex<Option<Credentials>>,
}

impl SdkCredentials {
    /// Returns `None` if the configuration itself has the keys.
    pub fn from_config(s3: &S3Config) -> Option<Self> {
        let profile = (!s3.profile.is_empty()).then(|| s3.profile.clone());
        s3.access_key_id.is_empty().then(|| Self { profile, provider: OnceCell::new(), cached: Mutex::default() })
    }

    async fn provider(&self) -> &SharedCredentialsProvider {
        let open = async || match &self.profile {
            Some(name) => {
                SharedCredentialsProvider::new(ProfileFileCredentialsProvider::builder().profile_name(name).build())
            }
            None => SharedCredentialsProvider::new(DefaultCredentialsChain::builder().build().await),
        };
        self.provider.get_or_init(open).await
    }
}

#[async_trait]
impl CredentialProvider for SdkCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut cached = self.cached.lock().await;
        let lasts = |c: &Credentials| c.expiry().is_none_or(|end| end > SystemTime::now() + RENEWED_BEFORE);
        let credentials = match cached.take().filter(lasts) {
            Some(credentials) => credentials,
            None => self.provider().await.provide_credentials().await.map_err(|e| {
                object_store::Error::Unauthenticated { path: "AWS credentials".into(), source: with_causes(&e).into() }
            })?,
        };
        let found = AwsCredential {
            key_id: credentials.access_key_id().into(),
            secret_key: credentials.secret_access_key().into(),
            token: credentials.session_token().map(String::from),
        };
        *cached = Some(credentials);
        Ok(Arc::new(found))
    }
}

/// Returns the text of an error and its causes: the SDK explains the problem in the last of them.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    failure::chain(error).map(|e| e.to_string()).collect::<Vec<_>>().join(": ")
}
