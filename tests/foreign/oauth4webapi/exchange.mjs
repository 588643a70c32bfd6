// One token's life through oauth4webapi: reads what it needs as JSON from stdin, prints what it saw.
import * as oauth from 'oauth4webapi'

const { issuer, client, resourceServer, method, scope, audience } = JSON.parse(
  await new Response(process.stdin).text(),
)
const http = { [oauth.allowInsecureRequests]: true } // the server under test is on loopback

const url = new URL(issuer)
const documents = {}
for (const algorithm of ['oauth2', 'oidc']) {
  const response = await oauth.discoveryRequest(url, { algorithm, ...http })
  documents[algorithm] = await oauth.processDiscoveryResponse(url, response)
}
const as = documents.oauth2

const prove = {
  client_secret_post: oauth.ClientSecretPost,
  client_secret_basic: oauth.ClientSecretBasic,
}
const party = { client_id: client.id }
const proof = prove[method](client.secret)
const token = await oauth.processClientCredentialsResponse(
  as,
  party,
  await oauth.clientCredentialsGrantRequest(as, party, proof, { scope }, http),
)

async function introspect(caller, callerProof) {
  const response = await oauth.introspectionRequest(as, caller, callerProof, token.access_token, http)
  const described = await oauth.processIntrospectionResponse(as, caller, response)
  if (caller.introspection_signed_response_alg) {
    await oauth.validateApplicationLevelSignature(as, response, http)
  }
  return described
}

const mapper = { client_id: resourceServer.id }
const mapperProof = oauth.ClientSecretBasic(resourceServer.secret)
const before = await introspect(mapper, mapperProof)
const signed = await introspect({ ...party, introspection_signed_response_alg: 'ES256' }, proof)
const claims = await oauth.validateJwtAccessToken(
  as,
  new Request(audience, { headers: { authorization: `Bearer ${token.access_token}` } }),
  audience,
  http,
)

await oauth.processRevocationResponse(
  await oauth.revocationRequest(as, party, proof, token.access_token, http),
)
const after = await introspect(mapper, mapperProof)

console.log(JSON.stringify({ documents, token, before, signed, claims, after }))
