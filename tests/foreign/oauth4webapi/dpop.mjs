// Tokens bound to a key through oauth4webapi, as client and as resource server: values come as JSON
// on stdin, and what was seen is printed.
import * as oauth from 'oauth4webapi'

const { issuer, client, resourceServer, scope, audience } = JSON.parse(
  await new Response(process.stdin).text(),
)
const http = { [oauth.allowInsecureRequests]: true } // the server under test is on loopback
const url = new URL(issuer)
const as = await oauth.processDiscoveryResponse(
  url,
  await oauth.discoveryRequest(url, { algorithm: 'oauth2', ...http }),
)

const party = { client_id: client.id }
const secret = oauth.ClientSecretPost(client.secret)
const alg = as.dpop_signing_alg_values_supported[0]
const DPoP = oauth.DPoP(party, await oauth.generateKeyPair(alg))
const errors = []

async function fetchToken() {
  const response = await oauth.clientCredentialsGrantRequest(as, party, secret, { scope }, {
    DPoP,
    ...http,
  })
  return await oauth.processClientCredentialsResponse(as, party, response)
}

async function fetchTokenWithNonce() {
  try {
    return await fetchToken()
  } catch (error) {
    errors.push(error.error)
    if (!oauth.isDPoPNonceError(error)) throw error
    return await fetchToken()
  }
}

// The second token takes the nonce that came with the first.
const tokens = [await fetchTokenWithNonce(), await fetchTokenWithNonce()]
const mapper = { client_id: resourceServer.id }
const described = await oauth.processIntrospectionResponse(
  as,
  mapper,
  await oauth.introspectionRequest(
    as,
    mapper,
    oauth.ClientSecretBasic(resourceServer.secret),
    tokens[0].access_token,
    http,
  ),
)

// What the resource server sees of a call, and whether it accepts it.
async function call(handle) {
  let seen
  const fetch = async (address, options) => {
    seen = new Request(address, options)
    return new Response()
  }
  await oauth.protectedResourceRequest(
    tokens[0].access_token,
    'GET',
    new URL(audience),
    undefined,
    undefined,
    { DPoP: handle, [oauth.customFetch]: fetch, ...http },
  )
  try {
    return (await oauth.validateJwtAccessToken(as, seen, audience, { requireDPoP: true, ...http })).jti
  } catch (error) {
    return error.message
  }
}

const thumbprint = await DPoP.calculateThumbprint()
const right = await call(DPoP)
const wrong = await call(oauth.DPoP(party, await oauth.generateKeyPair(alg)))
console.log(JSON.stringify({ tokens, errors, described, thumbprint, right, wrong }))
