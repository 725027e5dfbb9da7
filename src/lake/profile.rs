//! Credentials out of a profile of the usual AWS files (`~/.aws/credentials`, `~/.aws/config`), which object_store does not
//! read itself. The AWS SDK does, roles and processes that a profile names included; it is here for Delta anyway.

use async_trait::async_trait;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;

use crate::config::{S3Config, environment};

/// How long before their end credentials are asked for anew.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);

/// Variables with which object_store finds credentials itself; it does so before a profile is looked for.
const OWN: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// The provider of a profile, asked again when its credentials are about to end.
#[derive(Debug)]
pub struct Profile {
    files: ProfileFileCredentialsProvider,
    known: Mutex<Option<Credentials>>,
}

impl Profile {
    /// The profile that `s3.profile` or `AWS_PROFILE` names, or the files' default one where there are files and nothing
    /// else gives credentials.
    pub fn of(s3: &S3Config) -> Option<Self> {
        let variables: HashMap<String, String> = environment().into_iter().filter(|(_, v)| !v.is_empty()).collect();
        let named =
            [Some(&s3.profile), variables.get("AWS_PROFILE")].into_iter().flatten().find(|name| !name.is_empty());
        if !s3.access_key_id.is_empty() || (s3.profile.is_empty() && OWN.iter().any(|v| variables.contains_key(*v))) {
            return None;
        }
        let files = match variables.get("AWS_SHARED_CREDENTIALS_FILE") {
            Some(file) => Path::new(file).exists(),
            None => variables.get("HOME").is_some_and(|home| Path::new(home).join(".aws/credentials").exists()),
        };
        if named.is_none() && !files {
            return None;
        }
        let mut builder = ProfileFileCredentialsProvider::builder();
        if let Some(name) = named {
            builder = builder.profile_name(name);
        }
        Some(Self { files: builder.build(), known: Mutex::default() })
    }
}

#[async_trait]
impl CredentialProvider for Profile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut known = self.known.lock().await;
        let lasts = |c: &Credentials| c.expiry().is_none_or(|end| end > SystemTime::now() + RENEWED_BEFORE);
        let credentials = match known.take().filter(lasts) {
            Some(credentials) => credentials,
            None => self.files.provide_credentials().await.map_err(|e| object_store::Error::Unauthenticated {
                path: "AWS profile".into(),
                source: with_causes(&e).into(),
            })?,
        };
        let found = AwsCredential {
            key_id: credentials.access_key_id().into(),
            secret_key: credentials.secret_access_key().into(),
            token: credentials.session_token().map(String::from),
        };
        *known = Some(credentials);
        Ok(Arc::new(found))
    }
}

/// An error with its causes: the SDK says what is wrong in the last of them.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
