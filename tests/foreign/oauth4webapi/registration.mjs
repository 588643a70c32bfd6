// A client registers itself through oauth4webapi and obtains a token: values come as JSON on stdin,
// and what was seen is printed.
import * as oauth from 'oauth4webapi'

const { issuer, initialAccessToken, metadata } = JSON.parse(
  await new Response(process.stdin).text(),
)
const http = { [oauth.allowInsecureRequests]: true } // the server under test is on loopback
const url = new URL(issuer)
const as = await oauth.processDiscoveryResponse(
  url,
  await oauth.discoveryRequest(url, { algorithm: 'oauth2', ...http }),
)

const client = await oauth.processDynamicClientRegistrationResponse(
  await oauth.dynamicClientRegistrationRequest(as, metadata, { initialAccessToken, ...http }),
)
// Every process of the server knows the client within a second.
await new Promise((resolve) => setTimeout(resolve, 1_000))
const secret = oauth.ClientSecretBasic(client.client_secret)
const token = await oauth.processClientCredentialsResponse(
  as,
  client,
  await oauth.clientCredentialsGrantRequest(as, client, secret, {}, http),
)

let challenge
try {
  await oauth.processDynamicClientRegistrationResponse(
    await oauth.dynamicClientRegistrationRequest(as, metadata, { initialAccessToken, ...http }),
  )
} catch (error) {
  challenge = error.cause[0]
}
console.log(JSON.stringify({ client, token, challenge }))
