// One token's life through oauth4webapi, with assertions at the library's own defaults: values come
// as JSON on stdin, and what was seen is printed.
import * as oauth from 'oauth4webapi'

const { issuer, client, jwk, algorithm, secret, scope } = JSON.parse(
  await new Response(process.stdin).text(),
)
const http = { [oauth.allowInsecureRequests]: true } // the server under test is on loopback
const url = new URL(issuer)
const as = await oauth.processDiscoveryResponse(
  url,
  await oauth.discoveryRequest(url, { algorithm: 'oauth2', ...http }),
)

const party = { client_id: client }
const proof = secret
  ? oauth.ClientSecretJwt(secret)
  : oauth.PrivateKeyJwt({
      key: await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['sign']),
      kid: jwk.kid,
    })
const token = await oauth.processClientCredentialsResponse(
  as,
  party,
  await oauth.clientCredentialsGrantRequest(as, party, proof, { scope }, http),
)

async function introspect() {
  const response = await oauth.introspectionRequest(as, party, proof, token.access_token, http)
  return await oauth.processIntrospectionResponse(as, party, response)
}

const before = await introspect()
await oauth.processRevocationResponse(
  await oauth.revocationRequest(as, party, proof, token.access_token, http),
)
console.log(JSON.stringify({ token, before, after: await introspect() }))
