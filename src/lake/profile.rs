//! Credentials from a profile of the usual AWS files (`~/.aws/credentials`, `~/.aws/config`), which object_store does not read.
//!
//! Not the SDK's default chain: there a profile that does not exist falls through to the instance's metadata service, and
//! object_store already reads the environment, a web identity, the container and the instance's role itself.

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
use crate::failure;

/// Time before their expiry at which credentials are renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);

/// Variables with which object_store finds credentials itself; they win over the default profile.
const STORE_VARIABLES: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// A profile's credentials, cached until they are about to expire.
#[derive(Debug)]
pub(crate) struct ProfileCredentials {
    files: ProfileFileCredentialsProvider,
    cached: Mutex<Option<Credentials>>,
}

impl ProfileCredentials {
    /// Opens the profile that `s3.profile` or `AWS_PROFILE` names, or the default one where there are files and nothing else
    /// gives credentials. Returns `None` where object_store is to find them.
    pub(crate) fn from_config(s3: &S3Config) -> Option<Self> {
        let variables: HashMap<String, String> = environment().into_iter().filter(|(_, v)| !v.is_empty()).collect();
        let store_finds_them = STORE_VARIABLES.iter().any(|name| variables.contains_key(*name));
        if !s3.access_key_id.is_empty() || (s3.profile.is_empty() && store_finds_them) {
            return None;
        }
        let names = [Some(&s3.profile), variables.get("AWS_PROFILE")];
        let name = names.into_iter().flatten().find(|name| !name.is_empty());
        let has_files = match variables.get("AWS_SHARED_CREDENTIALS_FILE") {
            Some(file) => Path::new(file).exists(),
            None => variables.get("HOME").is_some_and(|home| Path::new(home).join(".aws/credentials").exists()),
        };
        if name.is_none() && !has_files {
            return None;
        }
        let mut files = ProfileFileCredentialsProvider::builder();
        if let Some(name) = name {
            files = files.profile_name(name);
        }
        Some(Self { files: files.build(), cached: Mutex::default() })
    }
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut cached = self.cached.lock().await;
        let lasts = |c: &Credentials| c.expiry().is_none_or(|end| end > SystemTime::now() + RENEWED_BEFORE);
        let credentials = match cached.take().filter(lasts) {
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
        *cached = Some(credentials);
        Ok(Arc::new(found))
    }
}

/// Returns the text of an error and its causes: the SDK explains the problem in the last of them.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    failure::chain(error).map(|e| e.to_string()).collect::<Vec<_>>().join(": ")
}
