"""What AWS and its SDK refuse, each as one sentence of what to do."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from fruits_assets.core.errors import without_secrets

SIGN_IN = "Sign in (`aws sso login`, `aws configure`) or set AWS_PROFILE, then run this again."
CONNECTION = "Check the network, the proxy, and AWS_ENDPOINT_URL if it is set; then try again."
CODES = {
    "may not": {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"},
    "expired": {"ExpiredToken", "ExpiredTokenException"},
    "unknown": {
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "OptInRequired",
        "UnrecognizedClientException",
    },
    "signature": {
        "InvalidSignatureException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    },
    "throttled": {"RequestLimitExceeded", "Throttling", "ThrottlingException"},
}
"""Kind of refusal -> the codes that services give it."""


def explain(
    error: BotoCoreError | ClientError | ResponseParserError, region: str, *, may: str
) -> str:
    """One sentence for people about an error, without the secrets that libraries quote.

    Args:
        error: what botocore raised.
        region: where the request went.
        may: what somebody must be allowed to do for the request to succeed, after "who may".
    """
    return without_secrets(_explained(error, region, may))


def _explained(
    error: BotoCoreError | ClientError | ResponseParserError, region: str, may: str
) -> str:
    if isinstance(error, ClientError):
        return _refusal(error, region, may)
    if isinstance(error, NoCredentialsError):
        return f"there are no AWS credentials on this machine. {SIGN_IN}"
    if isinstance(
        error,
        CredentialRetrievalError
        | PartialCredentialsError
        | ProfileNotFound
        | SSOError
        | TokenRetrievalError,
    ):
        return f"the AWS credentials at hand cannot be used ({_stop(str(error))}). {SIGN_IN}"
    if isinstance(error, ResponseParserError):
        return f"what answers in the place of AWS in {region} is not AWS. {CONNECTION}"
    if isinstance(error, ConnectionError | HTTPClientError):
        return f"AWS cannot be reached in {region} ({_stop(str(error))}). {CONNECTION}"

    return f"the request could not be made ({_stop(str(error))}). Correct it and run this again."


def code_of(error: ClientError) -> str:
    """The code that a service gives its refusal."""
    return error.response.get("Error", {}).get("Code", "nothing")


def _refusal(error: ClientError, region: str, may: str) -> str:
    code, message = code_of(error), error.response.get("Error", {}).get("Message", "")
    if code.isdigit():  # a status of HTTP, where AWS would have said more
        found = f"{code} {_stop(message)}"
        return f"what answers in the place of AWS in {region} is not AWS ({found}). {CONNECTION}"
    kind = next((kind for kind, codes in CODES.items() if code in codes), "other")
    return {
        "may not": f"AWS does not allow this ({_stop(message)}). Sign in as somebody who may "
        f"{may}, then run this again.",
        "expired": f"the AWS credentials have expired. {SIGN_IN}",
        "unknown": f"AWS does not know these credentials in {region} ({_stop(message)}). Check "
        "AWS_PROFILE and the keys, and that the account has this region enabled (eu-south-1 and "
        "eu-south-2 are off until somebody enables them in the account's settings).",
        "signature": f"AWS does not accept the signature ({_stop(message)}). Correct the clock of "
        "this machine, or the secret key.",
        "throttled": "AWS gets too many requests from this account. Wait a minute and run this "
        "again.",
        "other": f"AWS refuses this ({code}: {_stop(message)}). Put that right and run this again.",
    }[kind]


def _stop(text: str) -> str:
    """A text on one line, without the full stop that a bracket after it would double."""
    return " ".join(text.split()).rstrip(".")
