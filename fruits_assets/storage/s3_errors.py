"""What an error of S3 means for the person who reads it, and what to do about it."""

from __future__ import annotations

from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    CredentialRetrievalError,
    HTTPClientError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

KMS = (
    "the key that encrypts the bucket {bucket} may not be used ({found}). Allow this user "
    "kms:GenerateDataKey and kms:Decrypt on it, and see that FRUITS_KMS_KEY names an enabled key "
    "of the bucket's region."
)
SENTENCES = (
    (
        {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"},
        "the AWS credentials have expired. Sign in again (`aws sso login`, or new keys in the "
        "environment), then run again: what is finished is kept.",
    ),
    (
        {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"},
        "the AWS credentials are not accepted for the bucket {bucket} ({found}). See that the "
        "access key, the secret key and, for temporary ones, the session token belong together.",
    ),
    (
        {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"},
        "access to the bucket {bucket} is denied ({found}). Give this user the orchestrator's "
        "policy of the stack (docs/s3.md), and see that the name is that of your own bucket, in "
        "the account that FRUITS_BUCKET_OWNER names.",
    ),
    (
        {"NoSuchBucket", "404", "NotFound"},
        "the bucket {bucket} does not exist. See how it is spelled in FRUITS_LAKE and "
        "FRUITS_SOURCE, or create it with `make deploy` (docs/s3.md).",
    ),
    (
        {
            "PermanentRedirect",
            "TemporaryRedirect",
            "Redirect",
            "301",
            "302",
            "303",
            "307",
            "308",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
        },
        "the bucket {bucket} lies in another region than FRUITS_REGION says ({found}). Set "
        "FRUITS_REGION to its own region, if that is in the EU.",
    ),
    (
        {
            "SlowDown",
            "ServiceUnavailable",
            "503",
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
            "TooManyRequests",
            "429",
        },
        "S3 asks to slow down and did not recover within many retries (bucket {bucket}). Run again "
        "in a few minutes: what is finished is kept.",
    ),
    (
        {"RequestTimeTooSkewed", "RequestInTheFuture"},
        "the clock of this machine is wrong: S3 refuses requests that are off by more than 15 "
        "minutes. Set the clock (`timedatectl set-ntp true`), then run again.",
    ),
    (
        {"InternalError", "500", "InternalFailure", "502", "504"},
        "S3 had an internal error and did not recover within many retries (bucket {bucket}). Run "
        "again: what is finished is kept.",
    ),
    (
        {"QuotaExceeded", "StorageFull", "XMinioStorageFull", "507"},
        "the store has no space left for the bucket {bucket}. Free space there, then run again: "
        "what is finished is kept.",
    ),
)
"""Error codes of S3 -> what to say."""
NO_CREDENTIALS = (
    "no usable AWS credentials were found ({found}). Sign in (`aws configure`, `aws sso login`), "
    "or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
)
UNREACHABLE = (
    "S3 cannot be reached for the bucket {bucket} ({found}). See that this machine is connected "
    "and that AWS_ENDPOINT_URL, if set, is right; then run again: what is finished is kept."
)
OTHER = "S3 refused a request for the bucket {bucket}: {found}."


def sentence(error: Exception, *, bucket: str) -> str:
    """One sentence, or two, for an error of botocore: what was found, and what to do."""
    found = " ".join(str(error).split())[:300]
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        message = " ".join(error.response["Error"].get("Message", "").split()) or code
        return _of_code(code, message).format(bucket=bucket, found=f"{code}: {message}"[:300])
    no_credentials = (
        NoCredentialsError,
        PartialCredentialsError,
        CredentialRetrievalError,
        ProfileNotFound,
        SSOError,
        LoginError,
        TokenRetrievalError,
    )
    if isinstance(error, no_credentials):
        return NO_CREDENTIALS.format(found=found)
    if isinstance(error, ConnectionError | HTTPClientError):
        return UNREACHABLE.format(bucket=bucket, found=found)
    return OTHER.format(bucket=bucket, found=found)


def _of_code(code: str, message: str) -> str:
    if code.startswith("KMS.") or "kms:" in message or "KMS" in message:
        return KMS
    return next((text for codes, text in SENTENCES if code in codes), OTHER)
