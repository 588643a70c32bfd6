"""The features that the settings enable, for the metadata and the OpenAPI description."""

from functools import partial

from authz_server.assembly.services import Services
from authz_server.endpoints.discovery import Features
from authz_server.settings.profiles import permitted_algorithms


def features_of(services: Services) -> Features:
    """Return the features that the settings enable."""
    settings = services.settings
    permitted = partial(permitted_algorithms, settings.profiles)
    return Features(
        issuer=settings.issuer,
        grant_types=tuple(services.grants),
        authorization_details_types=tuple(services.authorization_details_types),
        authentication_methods=services.authentication_methods.names,
        assertion_algorithms=permitted(settings.assertions.algorithms),
        g2p=settings.g2p.enabled,
        introspection=settings.introspection.enabled,
        batch_introspection=settings.introspection.enabled and settings.introspection.batch,
        signed_introspection=settings.introspection.signed_responses,
        revocation=settings.revocation.enabled,
        registration=settings.registration.enabled,
        client_documents=bool(settings.client_id_documents.allowed_origins),
        client_certificates=settings.client_certificates.source != "off",
        mtls_base_url=settings.client_certificates.mtls_base_url,
        authorization_endpoint=settings.server.authorization_endpoint,
        dpop_algorithms=permitted(settings.dpop.algorithms if settings.dpop.enabled else ()),
    )
